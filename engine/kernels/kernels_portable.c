#include "engine/kernels/lanes_portable.h"

#include <float.h>

#include "engine/kernels/body_linear.h"
#include "engine/kernels/body_rows.h"
#include "engine/kernels/body_kv.h"
#include "engine/kernels/body_attention.h"
#include "engine/kernels/body_peak.h"

#define NAME "portable"
#define TABLE KERNELS_PORTABLE
#include "engine/kernels/body_table.h"
