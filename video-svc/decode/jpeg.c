#include "video-svc/decode/jpeg.h"

#include <stdio.h>

#include <jpeglib.h>
#include <setjmp.h>

/* libjpeg's way of failing is a function that must not return. */
struct failure {
    struct jpeg_error_mgr base;
    jmp_buf back;
};

static void failed(j_common_ptr c)
{
    struct failure *f = (struct failure *)(void *)c->err;
    longjmp(f->back, 1);
}

static void say_nothing(j_common_ptr c UNUSED)
{
}

static int encode(const struct picture *pic, int quality, unsigned char **mem, unsigned long *n)
{
    struct jpeg_compress_struct c;
    struct failure f;
    c.err = jpeg_std_error(&f.base);
    f.base.error_exit = failed;
    f.base.output_message = say_nothing;
    if (setjmp(f.back)) {
        jpeg_destroy_compress(&c);
        return ERR_INTERNAL;
    }
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, mem, n);
    c.image_width = pic->w;
    c.image_height = pic->h;
    c.input_components = (int)pic->channels;
    c.in_color_space = pic->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, quality, TRUE);
    c.optimize_coding = TRUE;
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = pic->p + (size_t)c.next_scanline * pic->w * pic->channels;
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    return 0;
}

int jpeg_encode(const struct picture *pic, size_t max_bytes, buf *out)
{
    static const int QUALITY[] = {85, 70, 50, 30, 10};
    for (size_t i = 0; i < ARRAY_LEN(QUALITY); i++) {
        unsigned char *mem = NULL;
        unsigned long n = 0;
        int e = encode(pic, QUALITY[i], &mem, &n);
        if (e >= 0 && n <= max_bytes)
            buf_put(out, mem, n);
        free(mem);
        if (e < 0 || n <= max_bytes)
            return e;
    }
    return ERR_TOO_BIG;
}
