#include "common/base/config.h"

const char NUNCHI_VERSION[] = NUNCHI_VERSION_TEXT;
