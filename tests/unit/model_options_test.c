/* The options of nunchi-model: what is refused before anything is opened. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "model-svc/options.h"

static int parse(struct model_options *o, struct why *w, char *a, char *b)
{
    char model[] = "--model", file[] = "m.gguf";
    char *argv[] = {model, file, a, b};
    char *env[] = {NULL};
    *o = (struct model_options){0};
    return config_parse(&MODEL_OPTIONS, 2 + (a != NULL) + (b != NULL), argv, env, (slice){0}, o, w);
}

static void test_defaults(void **state)
{
    (void)state;
    struct model_options o;
    struct why w;
    assert_int_equal(parse(&o, &w, NULL, NULL), 0);
    assert_string_equal(o.backend, "cpu");
    assert_string_equal(o.kv_type, "f16");
    assert_int_equal(o.kv_bytes, 512 << 20);
    assert_int_equal(o.slots, 64);
    assert_int_equal(o.drain_ms, 30000);
    assert_null(o.model_name);
    assert_false(o.insecure_network);
    config_free(&MODEL_OPTIONS, &o);
}

static void test_refused(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"--backend", "cuda"},     {"--batch", "600"},      {"--step-tokens", "8"},
        {"--step-tokens", "5000"}, {"--slots", "0"},        {"--queue-max", "0"},
        {"--threads", "-1"},       {"--threads", "257"},    {"--context", "2000000"},
        {"--step-ms", "0"},        {"--log-level", "loud"}, {"--model", ""},
        {"--kv-type", "fp8"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct model_options o;
        struct why w = {.text = ""};
        char a[32], b[32];
        memcpy(a, bad[i][0], strlen(bad[i][0]) + 1);
        memcpy(b, bad[i][1], strlen(bad[i][1]) + 1);
        if (parse(&o, &w, a, b) >= 0)
            fail_msg("%s %s was taken", a, b);
        assert_true(w.text[0]);
    }
}

static void test_model_is_required(void **state)
{
    (void)state;
    struct model_options o = {0};
    struct why w;
    char *env[] = {NULL};
    assert_int_equal(config_parse(&MODEL_OPTIONS, 0, NULL, env, (slice){0}, &o, &w), ERR_INVALID);
    assert_non_null(strstr(w.text, "--model"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_model_is_required),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
