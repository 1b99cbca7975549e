/* file.h: whole files, read or mapped. Errors name the file and the reason. */
#ifndef MINISGL_BASE_FILE_H
#define MINISGL_BASE_FILE_H
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

/* Read a regular file of at most max bytes; *out is NUL-terminated behind *n bytes; the caller frees it. */
int file_read(const char *path, size_t max, char **out, size_t *n, struct err *e);

struct file_map {
    const char *data;
    size_t len;
};
/* Map a regular file read-only. The pages come from the page cache; close unmaps. An empty file maps to len 0. */
int file_map_open(struct file_map *m, const char *path, struct err *e);
void file_map_close(struct file_map *m);
/* From now on a mapped file that became shorter ends the process with a sentence that names it (exit code 1), not with
 * a bare SIGBUS. Call once, at start. */
void file_map_guard(void);

bool file_exists(const char *path);                    /* a readable regular file */
/* Is anything there by this name, if only a link to nothing or a folder? Optional files of a model are read when so, and refused when
 * they cannot be read. */
bool file_given(const char *path);
bool dir_exists(const char *path);
/* The folder that the running program lies in; the caller frees it. NULL and *e (which may be NULL) where /proc does not tell. */
char *program_folder(struct err *e);
/* A shared object of ours: beside the program, else in ../lib/minisgl from there. The caller frees it; NULL: in neither. */
char *program_library(const char *name);
char *path_join(const char *dir, const char *name);    /* "dir/name"; the caller frees it */

#endif
