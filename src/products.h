/* products.h: where the user's table of matrix products lies (dev/lintab.h), and reading it. */
#ifndef MINISGL_PRODUCTS_H
#define MINISGL_PRODUCTS_H
#include "dev/lintab.h"
#include "opt.h"

/* minisgl/products.txt in the cache folder that the options name; the caller frees it. NULL: there is no home folder. */
char *products_path(const struct options *o);

/* Read a table from `path`; where there is no such file *t is empty (must: that is an error). Release *t in any case. */
int products_read(struct lintab *t, const char *path, bool must, struct err *e);

/* Write it to `path`, whole or not at all; folders are made. */
int products_write(const struct lintab *t, const char *path, struct err *e);

#endif
