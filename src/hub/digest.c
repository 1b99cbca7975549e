/* digest.c: OpenSSL's sha256 and sha1. The caller's thread owns each digest. A library that refuses them (a FIPS
 * setting without sha1) ends the process: without checksums no download may be trusted. */
#include "hub/digest.h"

#include "base/err.h"

#include <openssl/evp.h>
#include <stdio.h>

void digest_init(struct digest *d, enum hub_sum kind, size_t size) {
    d->ctx = NULL;
    if (kind == HUB_SUM_NONE) return;
    d->ctx = EVP_MD_CTX_new();
    if (!d->ctx || EVP_DigestInit_ex(d->ctx, kind == HUB_SUM_SHA256 ? EVP_sha256() : EVP_sha1(), NULL) != 1)
        BUG("OpenSSL has no %s", kind == HUB_SUM_SHA256 ? "sha256" : "sha1");
    if (kind == HUB_SUM_GIT) {
        char head[40];
        digest_add(d, head, (size_t)snprintf(head, sizeof head, "blob %zu", size) + 1); /* with its NUL */
    }
}

void digest_add(struct digest *d, const void *p, size_t n) {
    if (d->ctx && EVP_DigestUpdate(d->ctx, p, n) != 1) BUG("OpenSSL refuses %zu bytes", n);
}

void digest_end(struct digest *d, char hex[65]) {
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    hex[0] = 0;
    if (d->ctx && EVP_DigestFinal_ex(d->ctx, sum, &n) != 1) BUG("OpenSSL gives no sum");
    for (unsigned i = 0; i < n && i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    digest_release(d);
}

void digest_release(struct digest *d) {
    EVP_MD_CTX_free(d->ctx);
    d->ctx = NULL;
}
