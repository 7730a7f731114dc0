/* OpenAI's bodies: every field at its limits and beyond them, and what is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "gateway/openai.h"

static struct gw_request *r;
static struct why why;

static int parse(enum openai_api api, const char *json)
{
    gw_request_free(r);
    why = (struct why){{0}, {0}};
    return openai_parse(api, slice_str(json), &r, &why);
}

/* A body with one more member. */
static int with(enum openai_api api, const char *member)
{
    buf json = {0};
    buf_printf(&json, "{\"model\":\"m\",%s%s%s}",
               api == OPENAI_CHAT ? "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
                                  : "\"prompt\":\"hi\"",
               member[0] ? "," : "", member);
    int e = parse(api, buf_cstr(&json));
    buf_clear(&json);
    return e;
}

static int chat(const char *member)
{
    return with(OPENAI_CHAT, member);
}

static int completion(const char *member)
{
    return with(OPENAI_COMPLETION, member);
}

static int content(const char *value)
{
    buf json = {0};
    buf_printf(&json, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":%s}]}", value);
    int e = parse(OPENAI_CHAT, buf_cstr(&json));
    buf_clear(&json);
    return e;
}

static int teardown(void **state UNUSED)
{
    gw_request_free(r);
    r = NULL;
    return 0;
}

static void defaults(void **state UNUSED)
{
    assert_int_equal(chat(""), 0);
    assert_true(r->chat);
    assert_true(slice_eq_str(r->model, "m"));
    assert_int_equal(r->n_turns, 1);
    assert_true(slice_eq_str(r->turns[0].role, "user"));
    assert_true(slice_eq_str(r->turns[0].parts[0].text, "hi"));
    assert_true(r->sampling.temperature == 1 && r->sampling.top_p == 1 &&
                r->sampling.repetition_penalty == 1);
    assert_int_equal(r->n, 1);
    assert_int_equal(r->max_tokens, 0);
    assert_false(r->stream || r->sampling.seed_given || r->sampling.logprobs);
    assert_int_equal(completion(""), 0);
    assert_true(slice_eq_str(r->prompt, "hi"));
    assert_int_equal(r->max_tokens, 16); /* OpenAI's default */
}

static void all_fields(void **state UNUSED)
{
    assert_int_equal(chat("\"temperature\":0.5,\"top_p\":0.9,\"top_k\":40,\"min_p\":0.1,\"seed\":-"
                          "5,\"n\":2,\"stop\":[\"a\",\"b\"],"
                          "\"max_completion_tokens\":9,\"presence_penalty\":-2,\"frequency_"
                          "penalty\":2,\"logit_bias\":{\"7\":-100},"
                          "\"logprobs\":true,\"top_logprobs\":20,\"stream\":true,\"stream_"
                          "options\":{\"include_usage\":true},"
                          "\"ignore_eos\":true,\"user\":\"u\",\"tools\":[],\"store\":false,"
                          "\"response_format\":{\"type\":\"text\"},"
                          "\"modalities\":[\"text\"],\"service_tier\":\"auto\",\"tool_choice\":"
                          "\"none\",\"metadata\":null"),
                     0);
    assert_true(r->sampling.temperature == 0.5 && r->sampling.top_p == 0.9 &&
                r->sampling.min_p == 0.1);
    assert_int_equal(r->sampling.top_k, 40);
    assert_true(r->sampling.seed == (uint64_t)-5 && r->sampling.seed_given);
    assert_int_equal(r->n, 2);
    assert_int_equal(r->n_stop, 2);
    assert_int_equal(r->max_tokens, 9);
    assert_int_equal(r->sampling.bias[0].id, 7);
    assert_true(r->sampling.bias[0].add == -100);
    assert_int_equal(r->sampling.top_logprobs, 20);
    assert_true(r->stream && r->include_usage && r->ignore_eos);
    assert_int_equal(completion("\"logprobs\":5,\"best_of\":1,\"echo\":false,\"suffix\":\"\","
                                "\"stop\":\"x\",\"max_tokens\":3"),
                     0);
    assert_true(r->sampling.logprobs);
    assert_int_equal(r->sampling.top_logprobs, 5);
    assert_int_equal(r->max_tokens, 3);
    assert_int_equal(parse(OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[\"one\"]}"), 0);
    assert_true(slice_eq_str(r->prompt, "one"));
}

static void at_the_limits(void **state UNUSED)
{
    static const char *const OK[] = {"\"temperature\":0",
                                     "\"temperature\":2",
                                     "\"temperature\":null",
                                     "\"top_p\":0",
                                     "\"top_p\":1",
                                     "\"min_p\":0",
                                     "\"min_p\":1",
                                     "\"top_k\":0",
                                     "\"top_k\":1000000",
                                     "\"n\":1",
                                     "\"n\":16",
                                     "\"n\":16.0",
                                     "\"max_tokens\":1",
                                     "\"max_tokens\":16777216",
                                     "\"seed\":9223372036854775807",
                                     "\"seed\":-9223372036854775808",
                                     "\"presence_penalty\":2",
                                     "\"frequency_penalty\":-2",
                                     "\"stop\":[]",
                                     "\"stop\":\"a\"",
                                     "\"logit_bias\":{}",
                                     "\"logit_bias\":{\"0\":100}",
                                     "\"logprobs\":true,\"top_logprobs\":0",
                                     "\"logprobs\":false,\"top_logprobs\":0",
                                     ("\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\","
                                      "\"9\",\"10\",\"11\",\"12\",\"13\",\"14\",\"15\",\"16\"]")};
    for (size_t i = 0; i < ARRAY_LEN(OK); i++)
        if (chat(OK[i]) != 0)
            fail_msg("%s: %s", OK[i], why.text);
}

struct bad {
    const char *member, *field;
};

static void check_bad(const struct bad *all, size_t n, int (*how)(const char *), int err)
{
    for (size_t i = 0; i < n; i++) {
        int e = how(all[i].member);
        if (e != err || strcmp(why.field, all[i].field) != 0 || !why.text[0])
            fail_msg("%s: %d %s '%s' (%s)", all[i].member, e, err_name(e), why.field, why.text);
        assert_null(r);
    }
}

static void beyond_the_limits(void **state UNUSED)
{
    static const struct bad BAD[] = {
        {"\"temperature\":-0.1", "temperature"},
        {"\"temperature\":2.1", "temperature"},
        {"\"temperature\":\"1\"", "temperature"},
        {"\"temperature\":true", "temperature"},
        {"\"top_p\":1.01", "top_p"},
        {"\"top_p\":-1", "top_p"},
        {"\"min_p\":2", "min_p"},
        {"\"top_k\":-1", "top_k"},
        {"\"top_k\":1000001", "top_k"},
        {"\"top_k\":1.5", "top_k"},
        {"\"n\":0", "n"},
        {"\"n\":17", "n"},
        {"\"n\":-1", "n"},
        {"\"max_tokens\":0", "max_tokens"},
        {"\"max_tokens\":16777217", "max_tokens"},
        {"\"max_tokens\":-5", "max_tokens"},
        {"\"max_completion_tokens\":0", "max_completion_tokens"},
        {"\"seed\":\"1\"", "seed"},
        {"\"seed\":1.5", "seed"},
        {"\"presence_penalty\":2.5", "presence_penalty"},
        {"\"frequency_penalty\":-3", "frequency_penalty"},
        {"\"stop\":\"\"", "stop"},
        {"\"stop\":[1]", "stop[0]"},
        {"\"stop\":[\"a\",\"\"]", "stop[1]"},
        {"\"stop\":{}", "stop"},
        {"\"stop\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\","
         "\"13\",\"14\",\"15\",\"16\",\"17\"]",
         "stop"},
        {"\"logit_bias\":{\"a\":1}", "logit_bias.a"},
        {"\"logit_bias\":{\"-1\":1}", "logit_bias.-1"},
        {"\"logit_bias\":{\"1\":101}", "logit_bias.1"},
        {"\"logit_bias\":{\"2147483648\":1}", "logit_bias.2147483648"},
        {"\"logit_bias\":[]", "logit_bias"},
        {"\"logprobs\":1", "logprobs"},
        {"\"top_logprobs\":5", "top_logprobs"},
        {"\"logprobs\":true,\"top_logprobs\":21", "top_logprobs"},
        {"\"stream\":1", "stream"},
        {"\"stream_options\":{\"include_usage\":true}", "stream_options"},
        {"\"stream\":true,\"stream_options\":{\"include_usage\":1}",
         "stream_options.include_usage"},
        {"\"stream\":true,\"stream_options\":{\"other\":1}", "stream_options.other"},
        {"\"user\":5", "user"},
        {"\"mesages\":[]", "mesages"},
        {"\"prompt\":\"hi\"", "prompt"},
        {"\"echo\":true", "echo"}};
    check_bad(BAD, ARRAY_LEN(BAD), chat, ERR_INVALID);
    static const struct bad COMPLETION_BAD[] = {{"\"logprobs\":6", "logprobs"},
                                                {"\"logprobs\":true", "logprobs"},
                                                {"\"best_of\":0", "best_of"},
                                                {"\"max_tokens\":0", "max_tokens"},
                                                {"\"max_tokens\":0,\"echo\":false", "max_tokens"},
                                                {"\"echo\":1", "echo"},
                                                {"\"messages\":[]", "messages"}};
    check_bad(COMPLETION_BAD, ARRAY_LEN(COMPLETION_BAD), completion, ERR_INVALID);
}

static void known_but_not_served(void **state UNUSED)
{
    static const struct bad BAD[] = {
        {"\"tools\":[{}]", "tools"},
        {"\"functions\":[{}]", "functions"},
        {"\"tool_choice\":\"auto\"", "tool_choice"},
        {"\"parallel_tool_calls\":true", "parallel_tool_calls"},
        {"\"response_format\":{\"type\":\"json_object\"}", "response_format"},
        {"\"audio\":{}", "audio"},
        {"\"modalities\":[\"audio\"]", "modalities[0]"},
        {"\"prediction\":{}", "prediction"},
        {"\"store\":true", "store"},
        {"\"reasoning_effort\":\"low\"", "reasoning_effort"},
        {"\"verbosity\":\"low\"", "verbosity"},
        {"\"web_search_options\":{}", "web_search_options"},
        {"\"metadata\":{}", "metadata"},
        {"\"service_tier\":\"flex\"", "service_tier"}};
    check_bad(BAD, ARRAY_LEN(BAD), chat, ERR_UNSUPPORTED);
    static const struct bad COMPLETION_BAD[] = {{"\"suffix\":\"x\"", "suffix"},
                                                {"\"best_of\":3", "best_of"}};
    check_bad(COMPLETION_BAD, ARRAY_LEN(COMPLETION_BAD), completion, ERR_UNSUPPORTED);
    assert_int_equal(parse(OPENAI_COMPLETION, "{\"model\":\"m\",\"prompt\":[1,2]}"),
                     ERR_UNSUPPORTED);
}

static void broken_bodies(void **state UNUSED)
{
    static const char *const BAD[] = {
        "",
        "{",
        "[]",
        "null",
        "\"x\"",
        "{}",
        "{\"model\":\"m\"}",
        "{\"messages\":[]}",
        "{\"model\":\"\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        "{\"model\":1,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        "{\"model\":\"m\",\"messages\":[]}",
        "{\"model\":\"m\",\"messages\":{}}",
        "{\"model\":\"m\",\"messages\":[1]}",
        "{\"model\":\"m\",\"messages\":[{}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\"}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":null}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":5}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[]}]}",
        "{\"model\":\"m\",\"model\":\"n\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\\u0000\"}]}",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]} x"};
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        int e = parse(OPENAI_CHAT, BAD[i]);
        if (e != ERR_INVALID)
            fail_msg("%s: %s", BAD[i], err_name(e));
    }
}

static void nested(size_t depth, buf *out)
{
    buf_reset(out);
    buf_put_str(out, "{\"model\":\"m\",\"messages\":");
    for (size_t i = 0; i < depth; i++)
        buf_put_byte(out, '[');
    for (size_t i = 0; i < depth; i++)
        buf_put_byte(out, ']');
    buf_put_byte(out, '}');
}

static void deep_and_large(void **state UNUSED)
{
    buf json = {0};
    nested(JSON_DEPTH - 1, &json);
    assert_int_equal(parse(OPENAI_CHAT, buf_cstr(&json)), ERR_INVALID);
    assert_string_equal(why.field, "messages[0]"); /* parsed, and then the wrong shape */
    nested(JSON_DEPTH, &json);
    assert_int_equal(parse(OPENAI_CHAT, buf_cstr(&json)), ERR_INVALID);
    assert_string_not_equal(why.field, "messages[0]");
    nested(100000, &json);
    assert_int_equal(parse(OPENAI_CHAT, buf_cstr(&json)), ERR_INVALID);
    for (int more = 0; more < 2; more++) {
        buf_reset(&json);
        buf_put_str(&json, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"");
        for (size_t i = 0; i < TEXT_BYTES_MAX + (size_t)more; i++)
            buf_put_byte(&json, 'x');
        buf_put_str(&json, "\"}]}");
        assert_int_equal(parse(OPENAI_CHAT, buf_cstr(&json)), more ? ERR_TOO_BIG : 0);
    }
    for (int more = 0; more < 2; more++) {
        buf_reset(&json);
        buf_put_str(&json, "{\"model\":\"m\",\"messages\":[");
        for (int i = 0; i < MESSAGES_MAX + more; i++)
            buf_printf(&json, "%s{\"role\":\"user\",\"content\":\"x\"}", i ? "," : "");
        buf_put_str(&json, "]}");
        assert_int_equal(parse(OPENAI_CHAT, buf_cstr(&json)), more ? ERR_INVALID : 0);
    }
    buf_clear(&json);
}

static void messages(void **state UNUSED)
{
    assert_int_equal(
        parse(
            OPENAI_CHAT,
            "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"s\",\"name\":\"n\"},"
            "{\"role\":\"assistant\",\"content\":\"a\",\"refusal\":null,\"annotations\":[],\"tool_"
            "calls\":null},"
            "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"text\","
            "\"text\":\"\"}]}]}"),
        0);
    assert_int_equal(r->n_turns, 3);
    assert_true(slice_eq_str(r->turns[0].name, "n"));
    assert_int_equal(r->turns[2].n_parts, 2);
    assert_int_equal(
        parse(OPENAI_CHAT,
              "{\"model\":\"m\",\"messages\":[{\"role\":\"tool\",\"content\":\"s\"}]}"),
        ERR_UNSUPPORTED);
    assert_string_equal(why.field, "messages[0].role");
    assert_int_equal(parse(OPENAI_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"assistant\","
                                        "\"content\":\"s\",\"tool_calls\":[{}]}]}"),
                     ERR_UNSUPPORTED);
    assert_string_equal(why.field, "messages[0].tool_calls");
    assert_int_equal(
        parse(OPENAI_CHAT,
              "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"s\",\"mood\":1}]}"),
        ERR_INVALID);
}

#define FILE_ID "file-0123456789abcdef0123456789abcdef"

static void videos(void **state UNUSED)
{
    assert_int_equal(
        content("[{\"type\":\"file\",\"file\":{\"file_id\":\"" FILE_ID "\"}},"
                "{\"type\":\"video_url\",\"video_url\":{\"url\":\"" FILE_ID "\"}},"
                "{\"type\":\"video_url\",\"video_url\":{\"url\":\"data:video/mp4;base64,QUJD\"}},"
                "{\"type\":\"file\",\"file\":{\"file_data\":\"data:video/"
                "mp4;base64,QUI=\",\"filename\":\"a.mp4\"}}]"),
        0);
    const struct gw_part *p = r->turns[0].parts;
    assert_int_equal(p[0].kind, GW_VIDEO_FILE);
    assert_int_equal(p[1].kind, GW_VIDEO_FILE);
    assert_int_equal(p[2].kind, GW_VIDEO_DATA);
    assert_true(slice_eq_str(p[2].text, "QUJD"));
    assert_true(slice_eq_str(p[3].name, "a.mp4"));
}

static void videos_refused(void **state UNUSED)
{
#define URL(u) "[{\"type\":\"video_url\",\"video_url\":{\"url\":\"" u "\"}}]"
    static const struct {
        const char *json;
        int err;
        const char *field;
    } BAD[] = {
        {URL("https://example.org/a.mp4"), ERR_UNSUPPORTED, "messages[0].content[0].video_url.url"},
        {URL("http://169.254.169.254/"), ERR_UNSUPPORTED, "messages[0].content[0].video_url.url"},
        {URL("file:///etc/passwd"), ERR_INVALID, "messages[0].content[0].video_url.url"},
        {URL("data:image/png;base64,QUJD"), ERR_INVALID, "messages[0].content[0].video_url.url"},
        {URL("data:video/mp4,QUJD"), ERR_INVALID, "messages[0].content[0].video_url.url"},
        {URL("data:video/mp4;base64,"), ERR_INVALID, "messages[0].content[0].video_url.url"},
        {URL("data:video/mp4;base64,QUJ"), 0, ""},
        {URL("data:video/mp4;base64,QU*D"), ERR_INVALID, "messages[0].content[0].video_url.url"},
        {URL("file-short"), ERR_INVALID, "messages[0].content[0].video_url.url"},
        {"[{\"type\":\"file\",\"file\":{}}]", ERR_INVALID, "messages[0].content[0].file"},
        {"[{\"type\":\"file\",\"file\":{\"file_id\":\"../../x\"}}]", ERR_INVALID,
         "messages[0].content[0].file.file_id"},
        {"[{\"type\":\"image_url\",\"image_url\":{\"url\":\"x\"}}]", ERR_UNSUPPORTED,
         "messages[0].content[0].type"},
        {"[{\"type\":\"input_audio\"}]", ERR_UNSUPPORTED, "messages[0].content[0].type"},
        {"[{\"type\":\"smell\"}]", ERR_INVALID, "messages[0].content[0].type"},
        {"[{\"text\":\"x\"}]", ERR_INVALID, "messages[0].content[0].type"}};
    for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
        int e = content(BAD[i].json);
        if (e != BAD[i].err || strcmp(why.field, BAD[i].field) != 0)
            fail_msg("%s: %s '%s' (%s)", BAD[i].json, err_name(e), why.field, why.text);
    }
    buf many = {0};
    for (int n = VIDEOS_MAX; n <= VIDEOS_MAX + 1; n++) {
        buf_reset(&many);
        for (int i = 0; i < n; i++)
            buf_printf(&many, "%s{\"type\":\"video_url\",\"video_url\":{\"url\":\"" FILE_ID "\"}}",
                       i ? "," : "[");
        buf_put_byte(&many, ']');
        assert_int_equal(content(buf_cstr(&many)), n > VIDEOS_MAX ? ERR_INVALID : 0);
    }
    buf_clear(&many);
}

int main(void)
{
#define T(f) cmocka_unit_test_teardown(f, teardown)
    const struct CMUnitTest tests[] = {T(defaults),
                                       T(all_fields),
                                       T(at_the_limits),
                                       T(beyond_the_limits),
                                       T(known_but_not_served),
                                       T(broken_bodies),
                                       T(deep_and_large),
                                       T(messages),
                                       T(videos),
                                       T(videos_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
