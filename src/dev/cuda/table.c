/* table.c: the table of products that comes with the program, products.txt, as it is, in the shared object: there is no file to lose. Constant. */
#include "dev/cuda/cuda.h"

__asm__(".section .rodata\n"
        ".global minisgl_products, minisgl_products_end\n"
        ".hidden minisgl_products, minisgl_products_end\n"
        "minisgl_products: .incbin \"src/dev/cuda/products.txt\"\n"
        "minisgl_products_end: .byte 0\n"
        ".previous\n");
extern const char minisgl_products[], minisgl_products_end[];

int table_shipped(struct lintab *t, struct err *e) {
    int rc = lintab_read(t, minisgl_products, (size_t)(minisgl_products_end - minisgl_products), e);
    return rc ? err_prefix(e, "the table of products in minisgl_cuda.so: ") : 0;
}
