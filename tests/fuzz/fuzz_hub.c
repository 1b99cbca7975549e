/* fuzz_hub.c: what a hub may answer: any text as each of the listings and as the index of the weights. What is accepted
 * has sums that are hex, names in order, and, written as a tree, reads back the same. */
#include "hub/layout.h"
#include "hub/listing.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void check(const struct hub_listing *l) {
    if (*l->commit && !hub_is_hex(l->commit, 40)) abort();
    for (size_t i = 0; i < l->n; i++) {
        const struct hub_file *f = &l->v[i];
        if (i && strcmp(l->v[i - 1].name, f->name) >= 0) abort();
        if (f->kind == HUB_SUM_SHA256 && !hub_is_hex(f->sum, 64)) abort();
        if (f->kind == HUB_SUM_GIT && !hub_is_hex(f->sum, 40)) abort();
        if (listing_find(l, f->name) != f) abort();
        if (hub_file_wanted(f->name, HUB_TEXT) && !hub_name_safe(f->name)) abort();
    }
}

static void check_tree(const struct hub_listing *l) {
    struct hub_listing again;
    struct buf b;
    buf_init(&b, 1 << 24);
    if (*l->commit && !listing_write_tree(l, &b)) {
        /* a name that is not Unicode is written as one that is; then, and only then, names may differ */
        if (!listing_parse_tree(&again, l->commit, buf_str(&b), b.len, NULL)) {
            if (again.n != l->n) abort();
            listing_release(&again);
        }
    }
    buf_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    const char *text = (const char *)data;
    struct hub_listing l;
    struct err e = {0};
    char **files, says[200];
    size_t n_files;
    if (!listing_parse_huggingface(&l, text, n, &e))
        check(&l), check_tree(&l), listing_release(&l);
    else if (e.kind != ERR_INPUT || !*e.text)
        abort();
    if (!listing_parse_modelscope(&l, text, n, &e)) check(&l), listing_release(&l);
    if (!listing_parse_tree(&l, "0123456789abcdef0123456789abcdef01234567", text, n, &e))
        check(&l), check_tree(&l), listing_release(&l);
    if (!index_files(text, n, &files, &n_files, &e)) {
        for (size_t i = 0; i < n_files; i++) {
            if (!hub_name_safe(files[i])) abort();
            free(files[i]);
        }
        free(files);
    }
    listing_complaint(text, n, says);
    if (strlen(says) >= sizeof says) abort();
    return 0;
}
