/* CURVE keys from files: Z85 text, one key a line, '#' begins a comment line. Only bus.c needs
 * this. */
#ifndef NUNCHI_KEYS_H
#define NUNCHI_KEYS_H

#include "common/base/map.h"

#define KEY_TEXT 40 /* Z85 of 32 bytes */
#define KEY_BYTES 32

struct key_pair {
    char public_key[KEY_TEXT + 1], secret_key[KEY_TEXT + 1];
};

/* ERR_INVALID or ERR_IO with a sentence that names the option, never the path or a key. */
int keys_read_pair(const char *path, struct key_pair *out, struct why *w) MUST_USE;
/* The public keys of a file as a set of 32-byte keys; the caller frees it. */
int keys_read_allowed(const char *path, map **out, struct why *w) MUST_USE;
/* ERR_INVALID for anything but 40 characters of Z85 below 2^32 a group. */
int keys_decode(slice text, unsigned char out[KEY_BYTES]) MUST_USE;

#endif
