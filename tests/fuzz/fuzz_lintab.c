/* fuzz_lintab.c: any text as a table of matrix products. What is accepted can be looked up, and is the same when written and read again. */
#include "dev/lintab.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void look_up(const struct lintab *t) {
    for (int32_t i = 0; i < t->n_rows; i++) {
        const struct lintab_row *r = &t->rows[i], *found = lintab_find(t, r->part, &r->shape, r->rows);
        if (found && (found->rows != r->rows || found->part != r->part)) abort();
        if (!found && r->rows > 0) abort();
    }
    for (int32_t i = 0; i < t->n_parts; i++)
        if (lintab_part(t, &t->parts[i]) < 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct lintab t, again;
    struct err e = {0};
    char *text;
    size_t size;
    if (lintab_read(&t, (const char *)data, n, &e)) {
        if (e.kind != ERR_INPUT || !*e.text) abort();
    } else {
        look_up(&t);
        FILE *f = open_memstream(&text, &size);
        lintab_write(&t, f);
        fclose(f);
        if (lintab_read(&again, text, size, &e) || again.n_rows != t.n_rows || again.n_parts != t.n_parts) abort();
        lintab_release(&again);
        free(text);
    }
    lintab_release(&t);
    return 0;
}
