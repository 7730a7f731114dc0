/* The table of one instruction set; NAME and TABLE come from the kernels_*.c that includes it. */
const struct kernels TABLE = {
    .name = NAME,
    .heights = HEIGHT_LIST,
    .n_heights = ARRAY_LEN(HEIGHT_LIST),
    .quantise = quantise,
    .linear = linear,
    .norm_rms = norm_rms,
    .norm_layer = norm_layer,
    .act_mul = act_mul,
    .sum = sum,
    .scale = scale,
    .rope = rope,
    .store_kv = {store_halves, store_bytes},
    .attention = attention,
    .attention_merge = attention_merge,
    .peak = {CHAINS * PEAK_DOT_OPS, PEAK_DOT_OPS ? CHAINS * 2 * LANES : 0, peak_dots, peak_fmas, peak_read},
};
