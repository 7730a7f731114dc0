/* A video's notes as text for a language model: a few plain lines about the file, then
 * chapters, scenes, the text on the screen and what is said, each line with its times
 * ([mm:ss-mm:ss], h:mm:ss from an hour on). Grouped by kind, without decoration, speech last:
 * of the wordings tried, SmolLM2-135M answered best from this one.
 *
 * Notes that do not fit their budget are thinned out evenly over time: scenes go first, speech and
 * text last, and a line says that it was done. Notes are data from strangers: lines are bounded,
 * control characters taken out. */
#ifndef NUNCHI_TOKENIZER_PLACE_H
#define NUNCHI_TOKENIZER_PLACE_H

#include "proto/video.pb-c.h"
#include "tokenizer-svc/tokenizer.h"

#define PLACE_LINE_BYTES_MAX 600 /* of one line's text; a subtitle is two rows of 42 characters */
/* Between notes and the text that follows them in the same turn: without it a small model goes on
 * with the notes. */
#define PLACE_QUESTION "\nQuestion about the video:\n"
#define PLACE_NAME_BYTES_MAX 160

typedef struct place place;

struct placed {
    size_t lines, kept;
};

/* Prepares the lines and counts their tokens. Borrows nothing. ERR_NOMEM, ERR_INVALID. */
int place_new(const Nunchi__Notes *notes, slice name, const tokenizer *t, tok_scratch *s,
              place **out, struct why *w) MUST_USE;
void place_free(place *p);         /* NULL is allowed */
size_t place_cost(const place *p); /* tokens of everything: a small overestimate */
size_t place_lines(const place *p);
/* Appends the text, in at most `budget` tokens if the heading fits; the heading is always there. */
struct placed place_write(const place *p, size_t budget, buf *out);

/* "01:05", or "1:01:05" with hours. */
void place_time(buf *out, uint64_t ms, bool hours);

#endif
