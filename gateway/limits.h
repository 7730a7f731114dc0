/* Everything a stranger can make large, and how large it may be. What an operator may want to
 * change is an option (config.c); these are the walls behind the options. */
#ifndef NUNCHI_GATEWAY_LIMITS_H
#define NUNCHI_GATEWAY_LIMITS_H

/* One HTTP connection's buffer: bounds the request line with all headers, and the size of an
 * upload's pieces. Every connection costs all of it. */
#define HTTP_POOL_BYTES (20u << 10)
/* All headers of a request, names and values: room for a proxy's cookies, far below the pool. */
#define HEADERS_BYTES_MAX (16u << 10)
/* Arguments of a query, whatever they are: the API has five. */
#define QUERY_ARGS_MAX 64
/* Listeners that do not read: beyond this an answer waits for its client (credit stops). */
#define HTTP_QUEUE_HIGH_BYTES (256u << 10)
#define HTTP_QUEUE_LOW_BYTES (64u << 10)
/* A JSON body that may carry a video inside: 24 MiB of video are 32 MiB of base64. */
#define BODY_BYTES_MAX (32u << 20)
/* Parsed away from the loop's thread from here on (parsing runs at about 50 MB/s). */
#define BODY_INLINE_BYTES (128u << 10)
/* Bodies of all connections together, beyond: 429. */
#define BODIES_BYTES_MAX (256u << 20)
#define JSON_DEPTH 32
#define JSON_NODES 100000
/* Text of a chat in all: a REQUEST's body is at most 4 MiB on the wire. */
#define TEXT_BYTES_MAX (3u << 20)
#define MESSAGES_MAX 2048
#define PARTS_MAX 256 /* of one message */
/* Videos of one request: their notes (1 MiB each) travel in one message of at most 16 MiB. */
#define VIDEOS_MAX 8
#define CHOICES_MAX 16
#define STOPS_MAX 16
#define STOP_BYTES_MAX 256
#define BIAS_MAX 1024
#define TOP_LOGPROBS_MAX 20
#define COMPLETION_LOGPROBS_MAX 5 /* OpenAI's limit for /v1/completions */
#define TOP_K_MAX 1000000
#define MAX_TOKENS_MAX (1 << 24) /* no context is longer */
#define NAME_BYTES_MAX 256       /* of a model, a user, a turn's author */
#define FILENAME_BYTES_MAX 255
#define PURPOSE_BYTES_MAX 32
#define HINT_BYTES_MAX 512 /* fields that are accepted as hints (user, prompt_cache_key …) */
#define REQUEST_ID_BYTES_MAX 128
/* multipart/form-data */
#define BOUNDARY_BYTES_MAX 70 /* RFC 2046 */
#define PART_HEADERS_BYTES_MAX 4096
#define FORM_PARTS_MAX 16
#define FORM_FIELD_BYTES_MAX 1024
/* Pieces of an upload on the bus. */
#define UPLOAD_CHUNK_BYTES (256u << 10)

#define FILES_LIST_MAX 1000
#define KEYS_MAX 4096
#define KEY_BYTES_MIN 8
#define KEY_BYTES_MAX 256
#define KEY_FILE_BYTES_MAX (1u << 20)

/* An answer is started again elsewhere at most so often after its worker was lost. */
#define ATTEMPTS_MAX 8
/* Workers that die under a request before it brought a new token: from so many on it runs alone; if
 * one dies then too, it was that request. */
#define SUSPECT_DEATHS 2
/* Tokens on their way to the gateway per request; topped up at half. */
#define CREDIT_TOKENS 256
/* An answer's value in the cache: below the 1 MiB of a bulk frame. */
#define RESULT_BYTES_MAX (1000u << 10)
/* The state of a file that is being read is asked for so often. */
#define FILE_POLL_MS 250
/* A file whose reading shows no sign of life for so long is given up; the cache should have said so
 * before. */
#define FILE_SILENT_MS 90000
#define CACHE_LOOKUP_MS 300
#define CACHE_CALL_MS 5000
#define TOKENIZE_MS 30000
/* Models that one worker offers: a list of all workers' models is made on the loop's thread. */
#define WORKER_MODELS_MAX 16
/* Blocks of which it is remembered who has them, twice (prefix.h): 2 million tokens, at most 16
 * MiB. */
#define AFFINITY_BLOCKS 131072
/* A worker with so many faults of its own in a row gets nothing for a while, which doubles with
 * every further one. */
#define FAILURES_MAX 5
#define SHUN_MS 1000
#define SHUN_MAX_MS 30000

#endif
