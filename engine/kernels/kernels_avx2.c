#include "engine/kernels/lanes_avx2.h"

#include <float.h>

#include "engine/kernels/body_linear.h"
#include "engine/kernels/body_rows.h"
#include "engine/kernels/body_kv.h"
#include "engine/kernels/body_attention.h"
#include "engine/kernels/body_peak.h"

#define NAME "avx2"
#define TABLE KERNELS_AVX2
#include "engine/kernels/body_table.h"
