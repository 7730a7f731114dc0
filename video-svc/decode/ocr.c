#include "video-svc/decode/ocr.h"

#include <tesseract/capi.h>

/* Letters are dark-light-dark many times in a small space; a window with so many strong steps may
 * hold some. */
#define WINDOW_W 48
#define WINDOW_H 24
#define STEP_MIN 40  /* of 255 between neighbouring columns */
#define STEPS_MIN 36 /* in one window */
#define LINE_LETTERS 5
#define LINE_CONFIDENCE_MIN 65 /* of a line as a whole */
#define SURE 82
#define DPI 150 /* said so that nothing is estimated; text on screens has no DPI */

struct ocr {
    TessBaseAPI *api;
};

int ocr_new(const char *languages, ocr **out, struct why *w)
{
    TessBaseAPI *api = TessBaseAPICreate();
    if (!api || TessBaseAPIInit2(api, NULL, languages, OEM_LSTM_ONLY) != 0) {
        if (api)
            TessBaseAPIDelete(api);
        return why_set(w, ERR_UNAVAILABLE, "ocr-languages",
                       "the data of tesseract for '%s' is not installed", languages);
    }
    TessBaseAPISetPageSegMode(api, PSM_SPARSE_TEXT);
    ocr *o = xcalloc(1, sizeof *o);
    o->api = api;
    *out = o;
    return 0;
}

void ocr_free(ocr *o)
{
    if (!o)
        return;
    TessBaseAPIEnd(o->api);
    TessBaseAPIDelete(o->api);
    free(o);
}

static bool is_word_char(uint32_t cp)
{
    return (cp >= '0' && cp <= '9') || (cp >= 'a' && cp <= 'z') || (cp >= 'A' && cp <= 'Z') ||
           cp >= 0xc0;
}

/* Letters and digits in s. */
static size_t word_chars(slice s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        uint32_t cp;
        size_t len = utf8_decode(s.p + i, s.n - i, &cp);
        n += len && is_word_char(cp);
        i += len ? len : 1;
    }
    return n;
}

/* Adds a word to the line that is being made. */
static void add_word(struct ocr_line *line, slice word)
{
    size_t n = strlen(line->text), room = sizeof line->text - 1 - n;
    if (n > 0 && room > word.n) {
        line->text[n++] = ' ';
        room--;
    }
    size_t take = word.n <= room ? word.n : utf8_complete_len(word.p, room);
    memcpy(line->text + n, word.p, take);
    line->text[n + take] = 0;
}

struct reading {
    struct ocr_line *lines;
    int n;
    struct ocr_line now;
    double weight, sum; /* of the confidences, by letters */
};

static void end_line(struct reading *r)
{
    size_t letters = word_chars(slice_str(r->now.text));
    r->now.confidence = r->weight > 0 ? (uint32_t)(r->sum / r->weight) : 0;
    /* One letter is noise more often than not, and a few are unless they are certain. */
    bool enough = letters >= LINE_LETTERS || (letters >= 2 && r->now.confidence >= SURE);
    if (enough && r->now.confidence >= LINE_CONFIDENCE_MIN && r->n < OCR_LINES_MAX)
        r->lines[r->n++] = r->now;
    r->now = (struct ocr_line){0};
    r->weight = r->sum = 0;
}

static uint32_t pixel(int v)
{
    return v < 0 ? 0 : (uint32_t)v;
}

static void place_line(struct ocr_line *line, TessResultIterator *it)
{
    int left, top, right, bottom;
    if (!TessPageIteratorBoundingBox(TessResultIteratorGetPageIteratorConst(it), RIL_TEXTLINE,
                                     &left, &top, &right, &bottom))
        return;
    line->left = pixel(left);
    line->top = pixel(top);
    line->right = pixel(right);
    line->bottom = pixel(bottom);
}

static void take_word(struct reading *r, TessResultIterator *it)
{
    float confidence = TessResultIteratorConfidence(it, RIL_WORD);
    char *text =
        confidence >= OCR_CONFIDENCE_MIN ? TessResultIteratorGetUTF8Text(it, RIL_WORD) : NULL;
    if (!text)
        return;
    slice word = slice_trim(slice_str(text));
    if (word.n > 0 && utf8_valid(word)) {
        if (r->now.text[0] == 0)
            place_line(&r->now, it);
        double letters = (double)word_chars(word) + 0.25;
        r->sum += letters * (double)(confidence > 100 ? 100 : confidence);
        r->weight += letters;
        add_word(&r->now, word);
    }
    TessDeleteText(text);
}

static int by_place(const void *a, const void *b)
{
    const struct ocr_line *x = a, *y = b;
    if (x->top != y->top)
        return x->top < y->top ? -1 : 1;
    return (x->left > y->left) - (x->left < y->left);
}

/* Sparse reading takes words far apart for lines of their own: those side by side at about one
 * height are joined. */
static bool side_by_side(const struct ocr_line *a, const struct ocr_line *b)
{
    uint32_t top = a->top > b->top ? a->top : b->top,
             bottom = a->bottom < b->bottom ? a->bottom : b->bottom;
    uint32_t height =
        a->bottom - a->top > b->bottom - b->top ? a->bottom - a->top : b->bottom - b->top;
    return bottom > top && (bottom - top) * 2 > height && b->left >= a->right &&
           b->left - a->right <= 2 * height;
}

static int join_lines(struct ocr_line *lines, int n)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++) {
            if (i == k || !side_by_side(&lines[i], &lines[k]))
                continue;
            add_word(&lines[i], slice_str(lines[k].text));
            lines[i].right = lines[k].right;
            lines[i].top = lines[i].top < lines[k].top ? lines[i].top : lines[k].top;
            lines[i].confidence = lines[i].confidence < lines[k].confidence ? lines[i].confidence
                                                                            : lines[k].confidence;
            memmove(&lines[k], &lines[k + 1], (size_t)(n - k - 1) * sizeof lines[0]);
            n--;
            i = -1; /* from the start: few lines, and each joining takes one away */
            break;
        }
    return n;
}

int ocr_read(ocr *o, const struct picture *grey, struct ocr_line out[OCR_LINES_MAX])
{
    TessBaseAPISetImage(o->api, grey->p, (int)grey->w, (int)grey->h, 1, (int)grey->w);
    TessBaseAPISetSourceResolution(o->api, DPI);
    if (TessBaseAPIRecognize(o->api, NULL) != 0)
        return ERR_INTERNAL;
    struct reading r = {.lines = out};
    TessResultIterator *it = TessBaseAPIGetIterator(o->api);
    if (it) {
        do {
            take_word(&r, it);
            if (TessPageIteratorIsAtFinalElement(TessResultIteratorGetPageIteratorConst(it),
                                                 RIL_TEXTLINE, RIL_WORD))
                end_line(&r);
        } while (TessResultIteratorNext(it, RIL_WORD));
        TessResultIteratorDelete(it);
    }
    TessBaseAPIClear(o->api);
    qsort(out, (size_t)r.n, sizeof *out, by_place);
    return join_lines(out, r.n);
}

static int steps_in(const struct picture *g, uint32_t x0, uint32_t y0)
{
    int n = 0;
    for (uint32_t y = y0; y < y0 + WINDOW_H && y < g->h; y++) {
        const uint8_t *row = g->p + (size_t)y * g->w;
        for (uint32_t x = x0; x < x0 + WINDOW_W && x + 2 < g->w; x++)
            n += abs(row[x + 2] - row[x]) >= STEP_MIN;
    }
    return n;
}

bool ocr_worth_it(const struct picture *grey)
{
    for (uint32_t y = 0; y < grey->h; y += WINDOW_H)
        for (uint32_t x = 0; x < grey->w; x += WINDOW_W)
            if (steps_in(grey, x, y) >= STEPS_MIN)
                return true;
    return false;
}
