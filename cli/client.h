/* What several commands do with the gateway: the model to ask for, sending a video, waiting until
 * it is read. Errors are whole sentences, the gateway's own where it sent one. */
#ifndef NUNCHI_CLIENT_H
#define NUNCHI_CLIENT_H

#include "common/json/json.h"

#define FILE_ID_MAX 64

/* A GET whose 200 is JSON. The caller frees *out. */
int client_get(const char *url, const char *path, json_doc **out, struct why *w) MUST_USE;
/* The sentence of an error answer. */
int client_refused(long status, slice body, struct why *w);
/* The first model the gateway serves. */
int client_model(const char *url, buf *out, struct why *w) MUST_USE;
/* Sends the file, with progress on stderr. */
int client_upload(const char *url, const char *path, char id[FILE_ID_MAX], struct why *w) MUST_USE;
/* Until it has been read, with progress on stderr. ERR_UNREADABLE with the reason when it cannot
 * be. */
int client_wait(const char *url, const char *id, struct why *w) MUST_USE;

#endif
