/*
 * The hot kernel: one call answers a whole read of a stack of layers, i.e. checks that the
 * compressed bytes are local, verifies block CRCs, and decodes straight into the caller's buffer.
 * native/portable-kernel.ts is its twin in TypeScript and has the same tests.
 *
 * Everything a blob says (jump table, block contents) is hostile: it may make a read fail, never
 * reach outside the blob's mapping or the destination. What TypeScript hands over besides
 * (addresses, table sizes) is checked by native/native-kernel.ts.
 *
 * liblz4 and libzstd are found at run time, so that building needs no headers.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the format is little-endian, and so are these kernels"
#endif

enum {
    GRANULE_SHIFT = 12,
    GROUP_SHIFT = 12,
    BLOCK_BYTES_MAX = 65536,
    /* The original's writer gives a compressor this much more room than the block itself. */
    EXPANSION_BYTES_MAX = 512,
    CRC_BYTES = 4,
    CRC_SEED = 100007,
    CACHE_LINE_BYTES = 64,
    ZERO_LAYER = 0xffff,
};

enum codec { CODEC_RAW, CODEC_LZ4, CODEC_ZSTD };
enum result { RESULT_OK = 0, RESULT_MISSING = 1, RESULT_BAD = 2, RESULT_NO_MEMORY = 3 };
enum reason { REASON_MISSING, REASON_RANGE, REASON_TABLE, REASON_CHECKSUM, REASON_DECODE };

/* The layouts of these four are mirrored in native/native-kernel.ts and native/read-ops.ts. */
struct layer {
    const uint8_t *blob;
    uint64_t blob_bytes;
    const uint32_t *presence; /* one bit a granule; NULL: all of it is local */
    uint64_t payload_offset;
    uint64_t lsmt_bytes;
    const double *group_base;
    const uint32_t *within_group; /* one entry a block, and one more */
    uint32_t codec;
    uint32_t block_shift;
    uint32_t has_block_crc;
    uint32_t reserved;
};

struct op {
    double offset; /* byte of the layer's LSMT file */
    uint32_t layer;
    uint32_t length;
    uint32_t target; /* byte of the destination */
    uint32_t reserved;
};

struct failure {
    double blob_offset;
    double blob_bytes;
    uint32_t op;
    uint32_t block;
    uint32_t reason;
    uint32_t reserved;
};

struct reader {
    const struct layer *layers;
    const struct op *ops;
    struct failure *failure;
    uint64_t layer_count;
};

uint32_t rbd_crc32c_raw(uint32_t seed, const uint8_t *bytes, size_t length, int portable);

/* Bytes [start, end) of a blob. */
struct span {
    uint64_t start;
    uint64_t end;
};

/* ---- codecs -------------------------------------------------------------------------------- */

static int (*lz4_decompress)(const char *, char *, int, int);
static size_t (*zstd_decompress)(void *, void *, size_t, const void *, size_t);
static void *(*zstd_create)(void);
static size_t (*zstd_free)(void *);

/* What a thread needs while it decodes; freed when the thread ends. */
struct scratch {
    uint8_t stored[BLOCK_BYTES_MAX + EXPANSION_BYTES_MAX + CRC_BYTES];
    uint8_t plain[BLOCK_BYTES_MAX];
    void *zstd;
    /* Which block `plain` holds during one call; layer is NULL when none. */
    const struct layer *plain_layer;
    uint64_t plain_block;
};

static __thread struct scratch *scratch_of_thread;
static pthread_key_t scratch_key;

static void free_scratch(void *memory)
{
    struct scratch *scratch = memory;
    if (scratch->zstd != NULL)
        zstd_free(scratch->zstd);
    free(scratch);
}

static struct scratch *get_scratch(void)
{
    struct scratch *scratch = scratch_of_thread;
    if (scratch != NULL)
        return scratch;
    scratch = malloc(sizeof *scratch);
    if (scratch == NULL)
        return NULL;
    scratch->zstd = zstd_create == NULL ? NULL : zstd_create();
    if (scratch->zstd == NULL && zstd_create != NULL) {
        free(scratch);
        return NULL;
    }
    pthread_setspecific(scratch_key, scratch);
    scratch_of_thread = scratch;
    return scratch;
}

/* ---- set-up -------------------------------------------------------------------------------- */

/* The scratch destructor runs when a thread ends, so this library must never be unloaded. */
static void stay_loaded(void)
{
    Dl_info info;
    if (dladdr((void *)stay_loaded, &info) != 0)
        dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

__attribute__((constructor)) static void set_up(void)
{
    stay_loaded();
    pthread_key_create(&scratch_key, free_scratch);
    /* Deeply bound: Node has a libzstd of its own inside, whose functions theirs would call. */
    void *lz4 = dlopen("liblz4.so.1", RTLD_NOW | RTLD_DEEPBIND);
    if (lz4 != NULL)
        lz4_decompress = dlsym(lz4, "LZ4_decompress_safe");
    void *zstd = dlopen("libzstd.so.1", RTLD_NOW | RTLD_DEEPBIND);
    if (zstd != NULL) {
        zstd_create = dlsym(zstd, "ZSTD_createDCtx");
        zstd_free = dlsym(zstd, "ZSTD_freeDCtx");
        zstd_decompress = dlsym(zstd, "ZSTD_decompressDCtx");
    }
}

/* Counts changes of the structures above: TypeScript uses no library of another count. */
uint32_t rbd_layout(void)
{
    return 1;
}

/* Bit 0: LZ4 can be decoded here; bit 1: zstd can. */
uint32_t rbd_codecs(void)
{
    uint32_t zstd = zstd_create != NULL && zstd_free != NULL && zstd_decompress != NULL;
    return (lz4_decompress != NULL ? 1 : 0) | zstd << 1;
}

/* ---- reading ------------------------------------------------------------------------------- */

static int fail(const struct reader *reader, uint32_t op, uint64_t block, struct span span,
                enum reason reason)
{
    struct failure *failure = reader->failure;
    failure->blob_offset = (double)span.start;
    failure->blob_bytes = (double)(span.end - span.start);
    failure->op = op;
    failure->block = (uint32_t)block;
    failure->reason = reason;
    return reason == REASON_MISSING ? RESULT_MISSING : RESULT_BAD;
}

static int is_present(const struct layer *layer, struct span span)
{
    if (layer->presence == NULL || span.start == span.end)
        return 1;
    uint64_t first = span.start >> GRANULE_SHIFT;
    uint64_t last = (span.end - 1) >> GRANULE_SHIFT;
    for (uint64_t word = first >> 5; word <= last >> 5; word++) {
        uint32_t wanted = ~0u;
        if (word == first >> 5)
            wanted &= ~0u << (first & 31);
        if (word == last >> 5)
            wanted &= ~0u >> (31 - (last & 31));
        if ((__atomic_load_n(&layer->presence[word], __ATOMIC_ACQUIRE) & wanted) != wanted)
            return 0;
    }
    return 1;
}

/* The second of the two checks: what was read before it must not be read later. */
static int is_still_present(const struct layer *layer, struct span span)
{
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return is_present(layer, span);
}

/* Blob offset of block `block`, or UINT64_MAX when the table leads outside the blob. */
static uint64_t block_start(const struct layer *layer, uint64_t block)
{
    double base = layer->group_base[block >> GROUP_SHIFT];
    if (!(base >= 0 && base <= (double)layer->blob_bytes))
        return UINT64_MAX;
    uint64_t start = (uint64_t)base + layer->within_group[block];
    return start <= layer->blob_bytes ? start : UINT64_MAX;
}

static int is_in_layer(const struct layer *layer, const struct op *op)
{
    return op->offset >= 0 && op->offset <= (double)layer->lsmt_bytes && op->length > 0 &&
           op->length <= layer->lsmt_bytes - (uint64_t)op->offset;
}

/* The blob bytes behind an op that is in its layer; false when the jump table makes no sense. */
static int locate(const struct layer *layer, const struct op *op, struct span *span)
{
    const uint64_t offset = (uint64_t)op->offset;
    if (layer->codec == CODEC_RAW) {
        span->start = layer->payload_offset + offset;
        span->end = span->start + op->length;
        return 1;
    }
    span->start = block_start(layer, offset >> layer->block_shift);
    span->end = block_start(layer, ((offset + op->length - 1) >> layer->block_shift) + 1);
    return span->end != UINT64_MAX && span->start <= span->end;
}

static int decode(const struct layer *layer, struct scratch *scratch, const uint8_t *stored,
                  size_t stored_bytes, uint8_t *target, size_t expected)
{
    if (layer->codec == CODEC_LZ4) {
        int length = lz4_decompress((const char *)stored, (char *)target, (int)stored_bytes,
                                    (int)expected);
        return length == (int)expected;
    }
    return scratch->zstd != NULL &&
           zstd_decompress(scratch->zstd, target, expected, stored, stored_bytes) == expected;
}

/* Fetches what follows `span` from memory while `span` is decoded: about one block. The processor does
 * so by itself only within a page. */
static void prefetch_next(const struct layer *layer, struct span span)
{
    const uint64_t left = layer->blob_bytes - span.end;
    const uint64_t length = span.end - span.start < left ? span.end - span.start : left;
    for (uint64_t at = 0; at < length; at += CACHE_LINE_BYTES)
        __builtin_prefetch(layer->blob + span.end + at, 0, 2);
}

/* Decodes the whole of block `block`, `expected` bytes, into `target`. */
static int read_block(const struct reader *reader, uint32_t op_number, uint64_t block,
                      int is_next_read, struct scratch *scratch, uint8_t *target,
                      size_t expected)
{
    const struct layer *layer = &reader->layers[reader->ops[op_number].layer];
    struct span span = {block_start(layer, block), block_start(layer, block + 1)};
    const size_t crc_bytes = layer->has_block_crc ? CRC_BYTES : 0;
    const size_t stored_max = ((size_t)1 << layer->block_shift) + EXPANSION_BYTES_MAX + crc_bytes;
    if (span.start == UINT64_MAX || span.end == UINT64_MAX || span.end <= span.start + crc_bytes ||
        span.end - span.start > stored_max)
        return fail(reader, op_number, block, (struct span){0, 0}, REASON_TABLE);

    const uint8_t *stored = layer->blob + span.start;
    const size_t stored_bytes = span.end - span.start - crc_bytes;
    if (layer->presence != NULL) {
        /* Bytes that may go away are copied first, so that what is checked is what is decoded. */
        if (!is_present(layer, span))
            return fail(reader, op_number, block, span, REASON_MISSING);
        memcpy(scratch->stored, stored, span.end - span.start);
        if (!is_still_present(layer, span))
            return fail(reader, op_number, block, span, REASON_MISSING);
        stored = scratch->stored;
    }
    if (is_next_read)
        prefetch_next(layer, span);
    if (crc_bytes != 0) {
        uint32_t expected_crc;
        memcpy(&expected_crc, stored + stored_bytes, CRC_BYTES);
        if (rbd_crc32c_raw(CRC_SEED, stored, stored_bytes, 0) != expected_crc)
            return fail(reader, op_number, block, span, REASON_CHECKSUM);
    }
    if (!decode(layer, scratch, stored, stored_bytes, target, expected))
        return fail(reader, op_number, block, span, REASON_DECODE);
    return RESULT_OK;
}

static int read_compressed(const struct reader *reader, uint32_t op_number,
                           struct scratch *scratch, uint8_t *target)
{
    const struct op *op = &reader->ops[op_number];
    const struct layer *layer = &reader->layers[op->layer];
    const uint64_t block_bytes = (uint64_t)1 << layer->block_shift;
    uint64_t offset = (uint64_t)op->offset;
    const uint64_t end = offset + op->length;
    while (offset < end) {
        const uint64_t block = offset >> layer->block_shift;
        const uint64_t block_offset = block << layer->block_shift;
        const uint64_t left = layer->lsmt_bytes - block_offset;
        const uint64_t expected = left < block_bytes ? left : block_bytes;
        const uint64_t skipped = offset - block_offset;
        const uint64_t rest = expected - skipped;
        const uint64_t wanted = rest < end - offset ? rest : end - offset;
        if (wanted == expected) {
            int is_next_read = offset + wanted < end;
            int result =
                read_block(reader, op_number, block, is_next_read, scratch, target, expected);
            if (result != RESULT_OK)
                return result;
        } else {
            if (scratch->plain_layer != layer || scratch->plain_block != block) {
                scratch->plain_layer = NULL;
                int result =
                    read_block(reader, op_number, block, 0, scratch, scratch->plain, expected);
                if (result != RESULT_OK)
                    return result;
                scratch->plain_layer = layer;
                scratch->plain_block = block;
            }
            memcpy(target, scratch->plain + skipped, wanted);
        }
        offset += wanted;
        target += wanted;
    }
    return RESULT_OK;
}

static int read_raw(const struct reader *reader, uint32_t op_number, uint8_t *target)
{
    const struct layer *layer = &reader->layers[reader->ops[op_number].layer];
    struct span span;
    locate(layer, &reader->ops[op_number], &span);
    if (!is_present(layer, span))
        return fail(reader, op_number, 0, span, REASON_MISSING);
    memcpy(target, layer->blob + span.start, span.end - span.start);
    if (!is_still_present(layer, span))
        return fail(reader, op_number, 0, span, REASON_MISSING);
    return RESULT_OK;
}

/* Before anything is decoded: every op lies inside its layer and the target, and is present. */
static int check_ops(const struct reader *reader, uint32_t op_count, uint64_t target_bytes)
{
    for (uint32_t number = 0; number < op_count; number++) {
        const struct op *op = &reader->ops[number];
        struct span span = {0, 0};
        if ((uint64_t)op->target + op->length > target_bytes)
            return fail(reader, number, 0, span, REASON_RANGE);
        if (op->layer == ZERO_LAYER)
            continue;
        if (op->layer >= reader->layer_count)
            return fail(reader, number, 0, span, REASON_RANGE);
        const struct layer *layer = &reader->layers[op->layer];
        if (!is_in_layer(layer, op))
            return fail(reader, number, 0, span, REASON_RANGE);
        if (layer->presence == NULL)
            continue;
        if (!locate(layer, op, &span))
            return fail(reader, number, 0, (struct span){0, 0}, REASON_TABLE);
        if (!is_present(layer, span))
            return fail(reader, number, 0, span, REASON_MISSING);
    }
    return RESULT_OK;
}

/* Carries out `op_count` ops; `reader->failure` says what stopped it when the result is not 0. */
int rbd_read(const struct reader *reader, uint32_t op_count, uint8_t *target, uint64_t target_bytes)
{
    struct scratch *scratch = get_scratch();
    if (scratch == NULL)
        return RESULT_NO_MEMORY;
    scratch->plain_layer = NULL;
    int result = check_ops(reader, op_count, target_bytes);
    for (uint32_t number = 0; number < op_count && result == RESULT_OK; number++) {
        const struct op *op = &reader->ops[number];
        if (op->layer == ZERO_LAYER)
            memset(target + op->target, 0, op->length);
        else if (reader->layers[op->layer].codec == CODEC_RAW)
            result = read_raw(reader, number, target + op->target);
        else
            result = read_compressed(reader, number, scratch, target + op->target);
    }
    return result;
}
