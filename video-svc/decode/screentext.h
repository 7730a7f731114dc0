/* Lines read on the screen at several times become spans: the same line seen again, however it was
 * misread, goes on. Ends and beginnings are moved to the cuts between the pictures they were seen
 * in. No tesseract here. */
#ifndef NUNCHI_SCREENTEXT_H
#define NUNCHI_SCREENTEXT_H

#include "video-svc/decode/ocr.h"

typedef struct screentext screentext;

struct screentext_span {
    uint32_t start_ms, end_ms, confidence;
    char text[OCR_LINE_BYTES];
};

screentext *screentext_new(void);
void screentext_free(screentext *s);
/* What stands on the screen at time_ms (ascending). */
void screentext_seen(screentext *s, uint32_t time_ms, const struct ocr_line *lines, size_t n);
/* The picture at time_ms looks like the last one: everything goes on. */
void screentext_same(screentext *s, uint32_t time_ms);
/* After the last: orders the spans by start; cuts: ascending times of scenes' starts; end_ms: of
 * the video. */
size_t screentext_end(screentext *s, const uint32_t *cuts, size_t n_cuts, uint32_t end_ms);
const struct screentext_span *screentext_at(const screentext *s, size_t i);

#endif
