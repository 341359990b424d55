/*
 * The kernels of writers. One call compresses a batch of a ZFile's blocks and puts a CRC behind
 * each; another collects scattered pieces of a file. Both are meant for a thread of their own.
 * native/block-compressor.ts and native/file-pieces.ts are their callers, and hold the twins in
 * TypeScript, which have the same tests.
 *
 * liblz4 and libzstd are found at run time, so that building needs no headers.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum {
    CRC_BYTES = 4,
    CRC_SEED = 100007,
    /* The original's writer gives a compressor this much more room than the block itself. */
    EXPANSION_BYTES_MAX = 512,
    /* ZFile writers use this level whatever the header's `level` field says. */
    ZSTD_LEVEL = 3,
};

enum codec { CODEC_LZ4 = 1, CODEC_ZSTD = 2 };

/* The layouts of these two are mirrored by the callers. */
struct batch {
    const uint8_t *plain;
    uint8_t *stored; /* room for every block at its largest */
    uint32_t *lengths; /* of each block as it is stored, CRC included */
    uint32_t plain_bytes;
    uint32_t block_bytes;
    uint32_t codec;
    uint32_t has_block_crc;
};

struct piece {
    double offset; /* byte of the file */
    uint32_t length;
    uint32_t target; /* byte of the destination */
};

uint32_t rbd_crc32c_raw(uint32_t seed, const uint8_t *bytes, size_t length, int portable);

static int (*lz4_compress)(const char *, char *, int, int);
static size_t (*zstd_compress)(void *, void *, size_t, const void *, size_t, int);
static unsigned (*zstd_is_error)(size_t);
static void *(*zstd_create)(void);
static size_t (*zstd_free)(void *);

/* One a thread, for its life: making one costs more than using it. */
static __thread void *zstd_encoder;
static pthread_key_t zstd_key;

static void free_encoder(void *encoder)
{
    zstd_free(encoder);
}

__attribute__((constructor)) static void set_up(void)
{
    /* Deeply bound, as in kernels.c: another libzstd compresses to other bytes. */
    void *lz4 = dlopen("liblz4.so.1", RTLD_NOW | RTLD_DEEPBIND);
    if (lz4 != NULL)
        lz4_compress = dlsym(lz4, "LZ4_compress_default");
    void *zstd = dlopen("libzstd.so.1", RTLD_NOW | RTLD_DEEPBIND);
    if (zstd == NULL || pthread_key_create(&zstd_key, free_encoder) != 0)
        return;
    zstd_create = dlsym(zstd, "ZSTD_createCCtx");
    zstd_free = dlsym(zstd, "ZSTD_freeCCtx");
    zstd_is_error = dlsym(zstd, "ZSTD_isError");
    zstd_compress = dlsym(zstd, "ZSTD_compressCCtx");
}

/* Bit 0: LZ4 can be encoded here; bit 1: zstd can. */
uint32_t rbd_encoders(void)
{
    uint32_t zstd = zstd_create != NULL && zstd_free != NULL && zstd_is_error != NULL &&
                    zstd_compress != NULL;
    return (lz4_compress != NULL ? 1 : 0) | zstd << 1;
}

static void *get_encoder(void)
{
    if (zstd_encoder == NULL) {
        zstd_encoder = zstd_create();
        if (zstd_encoder != NULL)
            pthread_setspecific(zstd_key, zstd_encoder);
    }
    return zstd_encoder;
}

/* The encoded length, or 0 when the block does not fit. */
static size_t encode(const struct batch *batch, const uint8_t *plain, size_t bytes, uint8_t *target)
{
    const size_t room = (size_t)batch->block_bytes + EXPANSION_BYTES_MAX;
    if (batch->codec == CODEC_LZ4) {
        int length = lz4_compress((const char *)plain, (char *)target, (int)bytes, (int)room);
        return length > 0 ? (size_t)length : 0;
    }
    void *encoder = get_encoder();
    if (encoder == NULL)
        return 0;
    size_t length = zstd_compress(encoder, target, room, plain, bytes, ZSTD_LEVEL);
    return zstd_is_error(length) ? 0 : length;
}

/* The bytes stored, or -1 - n when block n does not fit the room that it has. */
int64_t rbd_compress(const struct batch *batch)
{
    uint8_t *target = batch->stored;
    uint32_t block = 0;
    for (uint32_t at = 0; at < batch->plain_bytes; at += batch->block_bytes, block++) {
        const uint32_t left = batch->plain_bytes - at;
        const uint32_t bytes = left < batch->block_bytes ? left : batch->block_bytes;
        size_t length = encode(batch, batch->plain + at, bytes, target);
        if (length == 0)
            return -1 - (int64_t)block;
        if (batch->has_block_crc) {
            const uint32_t crc = rbd_crc32c_raw(CRC_SEED, target, length, 0);
            memcpy(target + length, &crc, CRC_BYTES);
            length += CRC_BYTES;
        }
        batch->lengths[block] = (uint32_t)length;
        target += length;
    }
    return target - batch->stored;
}

/* All of [offset, offset + length): 0, an errno, or -1 when the file ends before. */
static int read_fully(int fd, uint8_t *target, uint64_t length, uint64_t offset)
{
    while (length > 0) {
        ssize_t count = pread(fd, target, length, (off_t)offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count < 0 ? errno : -1;
        target += count;
        offset += (uint64_t)count;
        length -= (uint64_t)count;
    }
    return 0;
}

/* Reads pieces of a file, neighbours together; what read_fully says of the first that fails. */
int rbd_gather(int fd, const struct piece *pieces, uint32_t count, uint8_t *target)
{
    for (uint32_t at = 0; at < count;) {
        const struct piece *first = &pieces[at];
        uint64_t length = first->length;
        for (at++; at < count; at++) {
            const struct piece *next = &pieces[at];
            if (next->offset != first->offset + (double)length ||
                next->target != first->target + length)
                break;
            length += next->length;
        }
        int result = read_fully(fd, target + first->target, length, (uint64_t)first->offset);
        if (result != 0)
            return result;
    }
    return 0;
}
