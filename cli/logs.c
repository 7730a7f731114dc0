#include "cli/logs.h"

#include "cli/home.h"

#define LOG_READ_MAX (256u << 20)

void log_tail(FILE *to, const char *service, size_t n_lines, bool title)
{
    char name[64];
    snprintf(name, sizeof name, "logs/%.40s.log", service);
    char *path = home_path(name);
    buf text = {0};
    if (file_read(path, LOG_READ_MAX, &text, NULL) >= 0) {
        size_t at = text.n;
        for (size_t seen = 0; at > 0; at--) {
            if (text.p[at - 1] == '\n' && at != text.n && ++seen == n_lines)
                break;
        }
        if (title)
            fprintf(to, "==> %s\n", service);
        fwrite(text.p + at, 1, text.n - at, to);
    }
    buf_clear(&text);
    free(path);
}
