/* Any bytes as a prepared file: refused, or exactly the seal that was asked for, with pieces that
 * can be read. What is asked for is fixed. The first four bytes of the input say which byte of a
 * right file is changed, and by how much it is cut: neither may go unseen. */
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/prepared.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DATA_BYTES 6000

static const struct prepared_tensor TENSORS[] = {{2, 48, 64, 0, 4032},
                                                 {8, 16, 32, 4032, DATA_BYTES - 4032}};
static const struct prepared_want WANT = {
    .source = {{1}}, .layout = {{2}}, .tensors = TENSORS, .n_tensors = 2, .bytes = DATA_BYTES};

/* The right seal around the input's bytes, so that what lies behind the comparison is reached too.
 */
static void put_right_file(const uint8_t *data, size_t size, buf *out)
{
    uint8_t sum[16];
    size_t seal_at = prepared_seal_at(&WANT);
    while (out->n < seal_at)
        buf_put_byte(out, out->n < size ? data[out->n] : 0);
    checksum128(out->p, seal_at, sum);
    size_t head = out->n;
    prepared_head(&WANT, out);
    buf_put(out, sum, sizeof sum);
    checksum128(out->p + head, out->n - head, sum);
    buf_put(out, sum, sizeof sum);
}

static bool opens(const void *p, size_t n)
{
    prepared *f;
    struct why w = {.text = ""};
    int fd = memfd_create("prepared", MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    int e = prepared_open_fd(fd, &WANT, &f, &w);
    close(fd);
    CHECK((e < 0) == (f == NULL) && (e >= 0 || w.text[0]));
    if (e < 0)
        return false;
    CHECK(prepared_n_pieces(f) == 1 && prepared_file_bytes(f) == n);
    for (size_t i = 0; i < DATA_BYTES; i++)
        CHECK(prepared_data(f)[i] == ((const uint8_t *)p)[i]);
    bool fine = prepared_piece_ok(f, 0);
    prepared_close(f);
    return fine;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    buf right = {0};
    (void)opens(data, size);
    if (size < 4)
        return 0;
    put_right_file(data + 4, size - 4, &right);
    CHECK(opens(right.p, right.n));
    size_t at = ((size_t)data[0] << 8 | data[1]) % right.n;
    right.p[at] = (char)(right.p[at] ^ (data[2] ? data[2] : 1));
    CHECK(!opens(right.p, right.n));
    right.p[at] = (char)(right.p[at] ^ (data[2] ? data[2] : 1));
    CHECK(!opens(right.p, right.n - 1 - data[3] % 64));
    buf_clear(&right);
    return 0;
}
