/* Answers in OpenAI's shapes, byte for byte, and characters that are split over tokens. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "common/wire/pb.h"
#include "gateway/openai_answer.h"

static struct openai_answer a;
static buf out;
static struct gw_request *r;
static const uint8_t UNIQUE[16] = {0xab}, NUMERICS[32] = {1, 2, 3, 4, 5, 6};

static void begin(enum openai_api api, const char *more)
{
    struct why why;
    buf json = {0};
    buf_printf(&json, "{\"model\":\"m\",%s%s}",
               api == OPENAI_CHAT ? "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
                                  : "\"prompt\":\"hi\"",
               more);
    assert_int_equal(openai_parse(api, buf_slice(&json), &r, &why), 0);
    buf_clear(&json);
    openai_answer_init(&a, api, r, UNIQUE, 1700000000);
    openai_answer_start(&a, &(struct gw_start){.numerics = {(const char *)NUMERICS, 32}}, &out);
}

static int teardown(void **state UNUSED)
{
    openai_answer_clear(&a);
    buf_clear(&out);
    gw_request_free(r);
    r = NULL;
    return 0;
}

static void said(const char *text)
{
    assert_string_equal(buf_cstr(&out), text);
    buf_reset(&out);
}

static void say(uint32_t choice, const char *text)
{
    openai_answer_delta(&a, &(struct gw_delta){.choice = choice, .text = slice_str(text)}, &out);
}

#define HEAD(object)                                                                               \
    "{\"id\":\"chatcmpl-ab000000000000000000000000000000\",\"object\":\"" object                   \
    "\",\"created\":1700000000,\"model\":\"m\",\"system_fingerprint\":\"fp_010203040506\","        \
    "\"choices\":["
#define CHUNK "data: " HEAD("chat.completion.chunk")
static const struct gw_usage USAGE = {
    .prompt_tokens = 7, .completion_tokens = 2, .cached_tokens = 5};
#define USAGE_TEXT                                                                                 \
    "\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9,\"prompt_tokens_"   \
    "details\":{\"cached_tokens\":5}}"

static void chat_streamed(void **state UNUSED)
{
    begin(OPENAI_CHAT, ",\"stream\":true");
    said("");
    say(0, "Hi");
    said(CHUNK "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
               "\"logprobs\":null,\"finish_reason\":null}]}\n\n" CHUNK
               "{\"index\":0,\"delta\":{\"content\":\"Hi\"},\"logprobs\":null,\"finish_reason\":"
               "null}]}\n\n");
    say(0, "\"\n");
    said(CHUNK "{\"index\":0,\"delta\":{\"content\":\"\\\"\\n\"},\"logprobs\":null,\"finish_"
               "reason\":null}]}\n\n");
    openai_answer_end(&a, 0, GW_END_STOP, &out);
    said(CHUNK "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}]}\n\n");
    openai_answer_done(&a, &USAGE, &out);
    said("data: [DONE]\n\n");
}

static void chat_streamed_with_usage(void **state UNUSED)
{
    begin(OPENAI_CHAT, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    openai_answer_end(&a, 0, GW_END_LENGTH, &out); /* not a word: the role comes all the same */
    said(CHUNK "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null},"
               "\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n" CHUNK
               "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"length\"}],"
               "\"usage\":null}\n\n");
    openai_answer_done(&a, &USAGE, &out);
    said(CHUNK "]," USAGE_TEXT "}\n\ndata: [DONE]\n\n");
}

/* Whether or not usage was asked for. */
static void numerics_that_changed(void **state UNUSED)
{
    struct gw_usage moved = USAGE;
    moved.numerics_changed = true;
    begin(OPENAI_CHAT, ",\"stream\":true");
    openai_answer_done(&a, &moved, &out);
    said(CHUNK "],\"nunchi\":{\"numerics_changed\":true}}\n\ndata: [DONE]\n\n");
}

static void chat_whole(void **state UNUSED)
{
    begin(OPENAI_CHAT, ",\"n\":2");
    say(1, "two");
    say(0, "one");
    openai_answer_end(&a, 0, GW_END_STOP, &out);
    openai_answer_end(&a, 1, GW_END_LENGTH, &out);
    said("");
    openai_answer_done(&a, &USAGE, &out);
    said(HEAD(
        "chat.completion") "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"one\","
                           "\"refusal\":null,\"annotations\":[]},"
                           "\"logprobs\":null,\"finish_reason\":\"stop\"},{\"index\":1,\"message\":"
                           "{\"role\":\"assistant\",\"content\":\"two\",\"refusal\":null,"
                           "\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"length\"}]"
                           "," USAGE_TEXT "}");
}

#define TEXT_HEAD                                                                                  \
    "{\"id\":\"cmpl-ab000000000000000000000000000000\",\"object\":\"text_completion\","            \
    "\"created\":1700000000,\"model\":\"m\","                                                      \
    "\"system_fingerprint\":\"fp_010203040506\",\"choices\":["

static void completion_both_ways(void **state UNUSED)
{
    begin(OPENAI_COMPLETION, ",\"stream\":true");
    say(0, "a");
    openai_answer_end(&a, 0, GW_END_STOP, &out);
    openai_answer_done(&a, &USAGE, &out);
    said("data: " TEXT_HEAD
         "{\"index\":0,\"text\":\"a\",\"logprobs\":null,\"finish_reason\":null}]}\n\n"
         "data: " TEXT_HEAD "{\"index\":0,\"text\":\"\",\"logprobs\":null,\"finish_reason\":"
         "\"stop\"}]}\n\ndata: [DONE]\n\n");
    teardown(NULL);
    begin(OPENAI_COMPLETION, "");
    say(0, "a");
    openai_answer_end(&a, 0, GW_END_STOP, &out);
    openai_answer_done(&a, &USAGE, &out);
    said(TEXT_HEAD
         "{\"index\":0,\"text\":\"a\",\"logprobs\":null,\"finish_reason\":\"stop\"}]," USAGE_TEXT
         "}");
}

static void say_logprob(const char *text, const char *token)
{
    Nunchi__TopLogprob t1 = NUNCHI__TOP_LOGPROB__INIT, t2 = NUNCHI__TOP_LOGPROB__INIT,
                       *top[] = {&t1, &t2};
    Nunchi__TokenLogprob lp = NUNCHI__TOKEN_LOGPROB__INIT, *lps[] = {&lp};
    lp.logprob = -0.5f;
    lp.text = pb_bytes(slice_str(token));
    t1.logprob = -0.5f;
    t2.logprob = -2;
    t1.text = t2.text = lp.text;
    lp.top = top;
    lp.n_top = 2;
    openai_answer_delta(
        &a, &(struct gw_delta){.text = slice_str(text), .logprobs = lps, .n_logprobs = 1}, &out);
}

static void chat_logprobs(void **state UNUSED)
{
    begin(OPENAI_CHAT, ",\"logprobs\":true,\"top_logprobs\":2");
    say_logprob("A", "A");
    openai_answer_end(&a, 0, GW_END_STOP, &out);
    openai_answer_done(&a, &USAGE, &out);
    said(HEAD(
        "chat.completion") "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A\","
                           "\"refusal\":null,\"annotations\":[]},"
                           "\"logprobs\":{\"content\":[{\"token\":\"A\",\"logprob\":-0.5,\"bytes\":"
                           "[65],\"top_logprobs\":[{\"token\":\"A\",\"logprob\":-0.5,"
                           "\"bytes\":[65]},{\"token\":\"A\",\"logprob\":-2,\"bytes\":[65]}]}],"
                           "\"refusal\":null},\"finish_reason\":\"stop\"}]," USAGE_TEXT "}");
}

static void completion_logprobs(void **state UNUSED)
{
    begin(OPENAI_COMPLETION, ",\"logprobs\":2");
    say_logprob("\xea\xb0\x80", "\xea\xb0\x80");
    say_logprob("b", "b");
    openai_answer_end(&a, 0, GW_END_STOP, &out);
    openai_answer_done(&a, &USAGE, &out);
    said(TEXT_HEAD
         "{\"index\":0,\"text\":\"\xea\xb0\x80"
         "b\",\"logprobs\":{\"tokens\":[\"\xea\xb0\x80\",\"b\"],\"token_logprobs\":[-0.5,-0.5],"
         "\"top_logprobs\":[{\"\xea\xb0\x80\":-0.5},{\"b\":-0.5}],\"text_offset\":[0,1]},\"finish_"
         "reason\":\"stop\"}]," USAGE_TEXT "}");
}

/* All text of a stream, put together again from its events. */
static void stream_text(buf *text)
{
    static const char KEY[] = "\"content\":\"";
    slice rest = buf_slice(&out), line;
    while (slice_split(&rest, '\n', &line)) {
        const char *at = line.n ? memmem(line.p, line.n, KEY, sizeof KEY - 1) : NULL;
        if (!at)
            continue;
        at += sizeof KEY - 1;
        const char *end = memchr(at, '"', (size_t)(line.p + line.n - at));
        assert_non_null(end);
        buf_put(text, at, (size_t)(end - at));
    }
}

/* A syllable of three bytes, an emoji of four and a lone broken byte, cut at every place. */
static void split_characters(void **state UNUSED)
{
    static const char TEXT[] = "\xec\x84\x9c\xec\x9a\xb8 \xf0\x9f\xa6\x8a\xff.";
    for (size_t cut = 1; cut < sizeof TEXT - 1; cut++) {
        buf got = {0};
        begin(OPENAI_CHAT, ",\"stream\":true");
        for (size_t at = 0; at < sizeof TEXT - 1; at += cut) {
            size_t n = sizeof TEXT - 1 - at < cut ? sizeof TEXT - 1 - at : cut;
            openai_answer_delta(&a, &(struct gw_delta){.text = {TEXT + at, n}}, &out);
            assert_true(utf8_valid(buf_slice(&out)));
        }
        openai_answer_end(&a, 0, GW_END_STOP, &out);
        stream_text(&got);
        assert_string_equal(buf_cstr(&got),
                            "\xec\x84\x9c\xec\x9a\xb8 \xf0\x9f\xa6\x8a\xef\xbf\xbd.");
        buf_clear(&got);
        teardown(NULL);
    }
}

static void cut_off_in_a_character(void **state UNUSED)
{
    begin(OPENAI_CHAT, "");
    say(0, "a\xec\x84");
    openai_answer_end(&a, 0, GW_END_LENGTH, &out);
    openai_answer_done(&a, &USAGE, &out);
    assert_non_null(strstr(buf_cstr(&out), "\"content\":\"a\xef\xbf\xbd\""));
}

static void errors(void **state UNUSED)
{
    struct why w;
    why_set(&w, ERR_INVALID, "messages[0].content", "must be a string");
    openai_put_error(&out, &(struct openai_error){.err = ERR_INVALID, .why = &w});
    said("{\"error\":{\"message\":\"messages[0].content: must be a "
         "string\",\"type\":\"invalid_request_error\",\"param\":\"messages[0].content\","
         "\"code\":null}}");
    openai_put_error(&out, &(struct openai_error){.err = ERR_BUSY});
    said("{\"error\":{\"message\":\"too many requests at "
         "once\",\"type\":\"rate_limit_error\",\"param\":null,\"code\":\"rate_limit_exceeded\"}}");
    why_set(&w, ERR_UNAVAILABLE, "", "no worker");
    openai_answer_failed(&(struct openai_error){.err = ERR_UNAVAILABLE, .why = &w}, &out);
    said("data: {\"error\":{\"message\":\"no "
         "worker\",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n");
    openai_answer_ping(&out, "reading video 42%");
    said(": reading video 42%\n\n");
}

static void files(void **state UNUSED)
{
    Nunchi__FileRecord f;
    Nunchi__FileRecords fs = NUNCHI__FILE_RECORDS__INIT;
    Nunchi__FileRecord *list[] = {&f};
    char id[] = "file-1", purpose[] = "user_data";
    nunchi__file_record__init(&f);
    f.id = id;
    f.purpose = purpose;
    f.bytes = 5;
    f.created_unix_s = 6;
    f.filename = pb_bytes(SLICE_LIT("a\"b.mp4"));
    f.status = NUNCHI__FILE_RECORD__STATUS__PROCESSED;
    fs.files = list;
    fs.n_files = 1;
    openai_put_files(&out, &fs);
    said("{\"object\":\"list\",\"data\":[{\"id\":\"file-1\",\"object\":\"file\",\"bytes\":5,"
         "\"created_at\":6,\"filename\":\"a\\\"b.mp4\","
         "\"purpose\":\"user_data\",\"status\":\"processed\",\"status_details\":null}],\"first_"
         "id\":\"file-1\",\"last_id\":\"file-1\",\"has_more\":false}");
    openai_put_deleted(&out, SLICE_LIT("file-1"));
    said("{\"id\":\"file-1\",\"object\":\"file\",\"deleted\":true}");
}

int main(void)
{
#define T(f) cmocka_unit_test_teardown(f, teardown)
    const struct CMUnitTest tests[] = {T(chat_streamed),
                                       T(chat_streamed_with_usage),
                                       T(numerics_that_changed),
                                       T(chat_whole),
                                       T(completion_both_ways),
                                       T(chat_logprobs),
                                       T(completion_logprobs),
                                       T(split_characters),
                                       T(cut_off_in_a_character),
                                       T(errors),
                                       T(files)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
