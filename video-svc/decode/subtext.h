/* Subtitles as plain text: markup of ASS and of HTML-like tags taken out, line breaks kept. */
#ifndef NUNCHI_SUBTEXT_H
#define NUNCHI_SUBTEXT_H

#include "common/base/slice.h"

/* event: "ReadOrder,Layer,Style,Name,MarginL,MarginR,MarginV,Effect,Text". Appends the text, as
 * valid UTF-8. */
void subtext_from_ass(slice event, buf *out);
void subtext_plain(slice text, buf *out); /* tags out, UTF-8 repaired, control characters out */

#endif
