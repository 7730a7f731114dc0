#include "engine/kernels/kernels.h"

#include <cpuid.h>

/* Conversion of 16-bit floats; not every compiler's __builtin_cpu_supports knows it. */
static bool cpu_has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool cpu_has_all(const struct kernels *k)
{
    __builtin_cpu_init();
    if (k == &KERNELS_PORTABLE)
        return true;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !cpu_has_f16c())
        return false;
    if (k == &KERNELS_AVX2)
        return true;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

int kernels_choose(const char *isa, const struct kernels **out, struct why *w)
{
    static const struct kernels *const ALL[] = {&KERNELS_AVX512, &KERNELS_AVX2, &KERNELS_PORTABLE}; /* best first */
    bool any = !isa || !*isa;
    for (size_t i = 0; i < ARRAY_LEN(ALL); i++) {
        if (!any && strcmp(isa, ALL[i]->name) != 0)
            continue;
        if (cpu_has_all(ALL[i])) {
            *out = ALL[i];
            return 0;
        }
        if (!any)
            return why_set(w, ERR_UNSUPPORTED, "isa", "this CPU lacks %s", isa);
    }
    return why_set(w, ERR_INVALID, "isa", "\"%.32s\" is not an instruction set; avx512, avx2 and portable are", isa);
}

uint32_t kernels_height(const struct kernels *k, uint32_t n_rows)
{
    uint32_t most = k->heights[k->n_heights - 1];
    uint32_t n_tiles = (n_rows + most - 1) / most;
    uint32_t need = n_tiles ? (n_rows + n_tiles - 1) / n_tiles : 1;
    for (size_t i = 0; i < k->n_heights; i++)
        if (k->heights[i] >= need)
            return k->heights[i];
    return most;
}
