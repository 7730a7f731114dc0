/* Text in a picture, read by tesseract. Everything it needs from disk is loaded by ocr_new, before
 * the sandbox closes. */
#ifndef NUNCHI_OCR_H
#define NUNCHI_OCR_H

#include "video-svc/decode/picture.h"

#define OCR_LINES_MAX 64 /* in one picture */
#define OCR_LINE_BYTES 512
#define OCR_CONFIDENCE_MIN 55 /* per cent; below, it is mostly texture taken for letters */

struct ocr_line {
    char text[OCR_LINE_BYTES]; /* UTF-8, no line break */
    uint32_t confidence;
    uint32_t left, top, right, bottom; /* pixels; lines come from top to bottom */
};

typedef struct ocr ocr;

/* languages: "eng+kor". ERR_UNAVAILABLE when their data is not installed. */
int ocr_new(const char *languages, ocr **out, struct why *w) MUST_USE;
void ocr_free(ocr *o);
/* grey: one channel. Returns how many lines, or an error. */
int ocr_read(ocr *o, const struct picture *grey, struct ocr_line out[OCR_LINES_MAX]) MUST_USE;

/* A cheap look before the dear one: could there be letters? Counts strong edges in small windows.
 */
bool ocr_worth_it(const struct picture *grey);

#endif
