/* Every tensor type against the floats that the `gguf` package makes of the same bytes. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "engine/dequant.h"

#define ELEMENTS_MAX 4096
#define BYTES_MAX 32768

static int read_record(FILE *f, uint32_t head[3], unsigned char *bytes, float *want)
{
    if (fread(head, sizeof *head, 3, f) != 3)
        return 0;
    assert_true(head[1] <= ELEMENTS_MAX && head[2] <= BYTES_MAX);
    assert_int_equal(fread(bytes, 1, head[2], f), head[2]);
    assert_int_equal(fread(want, sizeof *want, head[1], f), head[1]);
    return 1;
}

static void equals_the_gguf_package(void **state)
{
    (void)state;
    static unsigned char bytes[BYTES_MAX];
    static float want[ELEMENTS_MAX], got[ELEMENTS_MAX];
    FILE *f = fopen("tests/golden/data/dequant.bin", "rb");
    assert_non_null(f);
    uint32_t head[3];
    int types = 0;
    while (read_record(f, head, bytes, want)) {
        assert_true(dequant_knows(head[0]));
        dequant((enum weight_type)head[0], bytes, head[1], got);
        for (uint32_t i = 0; i < head[1]; i++) {
            /* The order of two multiplications may differ: one unit in the last place of the larger term. */
            float off = got[i] - want[i];
            if (off > 2e-6f || off < -2e-6f)
                fail_msg("type %u, element %u: %g, not %g", head[0], i, (double)got[i], (double)want[i]);
        }
        types++;
    }
    fclose(f);
    assert_int_equal(types, 11);
    assert_false(dequant_knows(10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(equals_the_gguf_package)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
