/* Recognises chat templates by their text. Only shapes whose output is known to the last character
 * are recognised; white space between tags, the kind of quotes and the marks that trim white space
 * may differ. */
#ifndef NUNCHI_TOKENIZER_TEMPLATE_H
#define NUNCHI_TOKENIZER_TEMPLATE_H

#include "common/base/slice.h"

/* ChatML, with or without a system message of its own for chats that bring none (then it replaces
 * *default_system). */
bool template_is_chatml(slice text, buf *default_system);
/* Gemma 2 and 3; *no_system: it refuses system messages. */
bool template_is_gemma(slice text, bool *no_system);

#endif
