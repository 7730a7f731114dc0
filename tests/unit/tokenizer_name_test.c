#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/model/name.h"

static void names_come_from_the_file(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"/m/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"},
        {"gemma-3-270m-q4_k_m.gguf", "gemma-3-270m"},
        {"a/b.c/Qwen2.5-7B_Q8_0.GGUF", "qwen2.5-7b"},
        {"llama-3-8b-UD-IQ2_XXS-00001-of-00003.gguf", "llama-3-8b"},
        {"tiny-bf16.gguf", "tiny"},
        {"my model (1).gguf", "my-model--1-"},
        {"q4_0.gguf", "q4_0"}, /* nothing would be left */
        {"model", "model"},
        {"x/", "model"},
        {"", "model"},
        {"aqua-q", "aqua-q"},
        {"kanana-nano-2.1b-instruct", "kanana-nano-2.1b-instruct"},
    };
    buf b = {0};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        model_default_name(slice_str(cases[i][0]), &b);
        assert_string_equal(buf_cstr(&b), cases[i][1]);
    }
    buf_clear(&b);
}

static void a_name_is_never_long(void **state)
{
    (void)state;
    char path[4096];
    memset(path, 'x', sizeof path);
    buf b = {0};
    model_default_name((slice){path, sizeof path}, &b);
    assert_int_equal(b.n, MODEL_NAME_MAX);
    buf_clear(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_come_from_the_file),
                                       cmocka_unit_test(a_name_is_never_long)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
