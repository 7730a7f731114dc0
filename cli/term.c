#include "cli/term.h"

#include <stdio.h>
#include <unistd.h>

#define BAR_CELLS 30

bool term_is_tty(void)
{
    return isatty(2) == 1;
}

static void draw_bar(const char *what, int permille)
{
    char bar[BAR_CELLS + 1];
    int full = permille * BAR_CELLS / 1000;
    for (int i = 0; i < BAR_CELLS; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR_CELLS] = 0;
    fprintf(stderr, "\r\033[K%s [%s] %3d %%", what, bar, permille / 10);
}

void progress_show(struct progress *p, const char *what, int permille)
{
    bool fresh = strncmp(p->what, what, sizeof p->what - 1) != 0;
    if (fresh)
        snprintf(p->what, sizeof p->what, "%s", what);
    if (!fresh && permille == p->last)
        return;
    if (!term_is_tty()) {
        if (permille < 0)
            fprintf(stderr, "%s\n", what);
        else if (fresh || permille / 100 != p->last / 100)
            fprintf(stderr, "%s: %d %%\n", what, permille / 10);
    } else if (permille < 0) {
        fprintf(stderr, "\r\033[K%s …", what);
    } else {
        draw_bar(what, permille);
    }
    p->last = permille;
}

void progress_end(struct progress *p)
{
    if (p->what[0] && term_is_tty())
        fputs("\r\033[K", stderr);
    p->what[0] = 0;
    p->last = -1;
}
