/* listing.h: what a hub says a repository holds, and which of it a model needs. All JSON from outside is read here. */
#ifndef MINISGL_HUB_LISTING_H
#define MINISGL_HUB_LISTING_H
#include "base/buf.h"
#include "base/err.h"
#include "hub/hub.h"

/* The answers of the hubs, and the listing that Hugging Face's own tool keeps in trees/COMMIT.json. Each fills *l,
 * which listing_release frees, or says -1 and leaves nothing. A name that occurs twice is refused. */
int listing_parse_huggingface(struct hub_listing *l, const char *json, size_t n, struct err *e);
int listing_parse_modelscope(struct hub_listing *l, const char *json, size_t n, struct err *e);
int listing_parse_tree(struct hub_listing *l, const char *commit, const char *json, size_t n, struct err *e);
void listing_release(struct hub_listing *l);

/* The same as trees/COMMIT.json has it; -1: the hub did not tell enough for one. */
int listing_write_tree(const struct hub_listing *l, struct buf *out);

const struct hub_file *listing_find(const struct hub_listing *l, const char *name); /* NULL: none */

/* The distinct files of model.safetensors.index.json, in order; free each and the array. -1: not an index. */
int index_files(const char *json, size_t n, char ***files, size_t *n_files, struct err *e);

/* What a hub says of an error in its body ({"error": ...} or {"Message": ...}); "" when nothing. */
void listing_complaint(const char *json, size_t n, char out[200]);

/* Whether a name may become a file of ours: one component of letters, digits and "._-", not beginning with a dot. */
bool hub_name_safe(const char *name);
/* Whether a file is one of the small ones that the need covers (all but the weights). Only files at the top count. */
bool hub_file_wanted(const char *name, unsigned need);
bool hub_is_hex(const char *s, size_t n); /* exactly n lower- or upper-case hex digits */

#endif
