/*
 * CRC-32C (Castagnoli) of blocks, with the best of three ways that this processor has:
 *
 *   in lanes   CRC instructions on three parts of the bytes in turn, joined by a carry-less product
 *   hardware   CRC instructions, one after the other
 *   sliced     eight tables
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

enum { CRC_LANES = 3, CRC_LANE_WORDS_MAX = 192 };

static uint32_t crc_table[8][256];

static void fill_crc_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? 0x82F63B78u : 0);
        crc_table[0][byte] = crc;
    }
    for (int slice = 1; slice < 8; slice++)
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = crc_table[slice - 1][byte];
            crc_table[slice][byte] = (crc >> 8) ^ crc_table[0][crc & 0xff];
        }
}

static uint32_t crc_sliced(uint32_t crc, const uint8_t *bytes, size_t length)
{
    for (; length >= 8; bytes += 8, length -= 8) {
        uint32_t low, high;
        memcpy(&low, bytes, 4);
        memcpy(&high, bytes + 4, 4);
        low ^= crc;
        crc = crc_table[7][low & 0xff] ^ crc_table[6][(low >> 8) & 0xff] ^
              crc_table[5][(low >> 16) & 0xff] ^ crc_table[4][low >> 24] ^
              crc_table[3][high & 0xff] ^ crc_table[2][(high >> 8) & 0xff] ^
              crc_table[1][(high >> 16) & 0xff] ^ crc_table[0][high >> 24];
    }
    for (; length > 0; bytes++, length--)
        crc = (crc >> 8) ^ crc_table[0][(crc ^ *bytes) & 0xff];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc_hardware(uint32_t crc, const uint8_t *bytes,
                                                               size_t length)
{
    uint64_t wide = crc;
    for (; length >= 8; bytes += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = (uint32_t)wide;
    for (; length > 0; bytes++, length--)
        crc = _mm_crc32_u8(crc, *bytes);
    return crc;
}

/* [n]: x^(64 n - 33) mod P, bits reflected: what move_crc multiplies by. */
static uint32_t crc_movers[CRC_LANE_WORDS_MAX + 1];

static void fill_crc_movers(void)
{
    uint32_t power = 0x80000000u; /* x^0 */
    for (int words = 1; words <= CRC_LANE_WORDS_MAX; words++) {
        for (int bit = words == 1 ? 33 : 0; bit < 64; bit++)
            power = (power >> 1) ^ (power & 1 ? 0x82F63B78u : 0);
        crc_movers[words] = power;
    }
}

/* The CRC of the bytes that `crc` is of, followed by so many words of zeros: crc * x^(64 words) mod P. The
 * CRC of the product as a word is product * x^33 mod P: x^32 is what a CRC multiplies by, and one x is
 * the bit that the product of two reflected numbers falls short of a word. */
__attribute__((target("sse4.2,pclmul"))) static uint32_t move_crc(uint32_t crc, size_t words)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)crc),
                                           _mm_cvtsi32_si128((int)crc_movers[words]), 0);
    return (uint32_t)_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* One CRC instruction waits three cycles for the one before: three parts of the bytes take turns. */
__attribute__((target("sse4.2,pclmul"))) static uint32_t crc_in_lanes(uint32_t crc,
                                                                      const uint8_t *bytes,
                                                                      size_t length)
{
    for (size_t words = length / 8 / CRC_LANES; words > 0; words = length / 8 / CRC_LANES) {
        if (words > CRC_LANE_WORDS_MAX)
            words = CRC_LANE_WORDS_MAX;
        uint64_t first = crc, second = 0, third = 0;
        for (size_t word = 0; word < words; word++, bytes += 8) {
            uint64_t of_first, of_second, of_third;
            memcpy(&of_first, bytes, 8);
            memcpy(&of_second, bytes + words * 8, 8);
            memcpy(&of_third, bytes + words * 16, 8);
            first = _mm_crc32_u64(first, of_first);
            second = _mm_crc32_u64(second, of_second);
            third = _mm_crc32_u64(third, of_third);
        }
        crc = move_crc(move_crc((uint32_t)first, words) ^ (uint32_t)second, words) ^
              (uint32_t)third;
        bytes += words * 8 * (CRC_LANES - 1);
        length -= words * 8 * CRC_LANES;
    }
    return crc_hardware(crc, bytes, length);
}
#elif defined(__ARM_FEATURE_CRC32)
static uint32_t crc_hardware(uint32_t crc, const uint8_t *bytes, size_t length)
{
    for (; length >= 8; bytes += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        crc = __crc32cd(crc, word);
    }
    for (; length > 0; bytes++, length--)
        crc = __crc32cb(crc, *bytes);
    return crc;
}
#endif

static uint32_t (*crc_raw)(uint32_t, const uint8_t *, size_t) = crc_sliced;

__attribute__((constructor)) static void choose_crc(void)
{
    fill_crc_table();
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("sse4.2"))
        return;
    crc_raw = crc_hardware;
    if (__builtin_cpu_supports("pclmul")) {
        fill_crc_movers();
        crc_raw = crc_in_lanes;
    }
#elif defined(__ARM_FEATURE_CRC32)
    crc_raw = crc_hardware;
#endif
}

/* CRC-32C without inversions; `portable` selects the table-driven version. */
uint32_t rbd_crc32c_raw(uint32_t seed, const uint8_t *bytes, size_t length, int portable)
{
    return portable ? crc_sliced(seed, bytes, length) : crc_raw(seed, bytes, length);
}
