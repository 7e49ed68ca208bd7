//! The hash slot of a key: CRC16 of the part in braces, or of the whole key.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>

use super::SLOTS;

/// CRC16/XMODEM: polynomial 0x1021, nothing reflected, begins with 0.
const POLYNOMIAL: u16 = 0x1021;
/// What a byte comes to with so many bytes after it.
const TABLES: [[u16; 256]; 4] = tables();

/// The slot of a key, as Redis computes it.
#[inline]
pub fn key_slot(key: &[u8]) -> u16 {
    // 16,384 slots are the lower 14 bits.
    const { assert!(SLOTS == 0x3fff + 1) };
    crc16(hashed_part(key)) & 0x3fff
}

/// What stands between the first `{` and the first `}` after it, unless that is nothing.
#[inline]
fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else {
        return key;
    };
    let tail = &key[open + 1..];
    match memchr::memchr(b'}', tail) {
        Some(len) if len > 0 => &tail[..len],
        _ => key,
    }
}

/// Four bytes at a time: their lookups do not wait for each other.
#[inline]
fn crc16(bytes: &[u8]) -> u16 {
    let (fours, rest) = bytes.as_chunks::<4>();
    let crc = fours
        .iter()
        .fold(0, |crc: u16, [first, second, third, fourth]| {
            let [high, low] = crc.to_be_bytes();
            TABLES[3][usize::from(high ^ first)]
                ^ TABLES[2][usize::from(low ^ second)]
                ^ TABLES[1][usize::from(*third)]
                ^ TABLES[0][usize::from(*fourth)]
        });
    rest.iter().fold(crc, |crc, byte| {
        let [high, _] = crc.to_be_bytes();
        (crc << 8) ^ TABLES[0][usize::from(high ^ byte)]
    })
}

const fn tables() -> [[u16; 256]; 4] {
    let mut tables = [[0; 256]; 4];
    let mut index: u16 = 0;
    while index < 256 {
        let mut crc = index << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ POLYNOMIAL
            };
            bit += 1;
        }
        tables[0][index as usize] = crc;
        index += 1;
    }
    let mut after = 1;
    while after < 4 {
        let mut index = 0;
        while index < 256 {
            let crc = tables[after - 1][index];
            tables[after][index] = (crc << 8) ^ tables[0][(crc >> 8) as usize];
            index += 1;
        }
        after += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(crc16(b""), 0);
        assert_eq!(TABLES[0][1], 0x1021);
        assert_eq!(TABLES[0][255], 0x1ef0);
    }

    #[test]
    fn four_bytes_at_a_time_come_to_the_same_as_one_by_one() {
        let bytes: Vec<u8> = (0..=255).map(|byte: u8| byte.wrapping_mul(37)).collect();
        for len in 0..bytes.len() {
            let one_by_one = bytes[..len].iter().fold(0, |crc: u16, byte| {
                let [high, _] = crc.to_be_bytes();
                (crc << 8) ^ TABLES[0][usize::from(high ^ byte)]
            });
            assert_eq!(crc16(&bytes[..len]), one_by_one, "{len} bytes");
        }
    }

    /// Slots as `CLUSTER KEYSLOT` of redis 7.0 gives them.
    #[test]
    fn slots_are_those_that_redis_computes() {
        for (key, slot) in [
            (&b""[..], 0),
            (b"foo", 12_182),
            (b"bar", 5_061),
            (b"123456789", 12_739),
            (b"user1000", 3_443),
            (b"\xff\x00\r\n", 7_349),
        ] {
            assert_eq!(key_slot(key), slot, "{key:?}");
        }
    }

    #[test]
    fn only_the_first_part_in_braces_counts() {
        assert_eq!(
            key_slot(b"{user1000}.following"),
            key_slot(b"{user1000}.followers")
        );
        assert_eq!(hashed_part(b"{user1000}.following"), b"user1000");
        // The cases of the specification.
        assert_eq!(hashed_part(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hashed_part(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hashed_part(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hashed_part(b"foo{bar"), b"foo{bar");
        assert_eq!(hashed_part(b"}foo{bar}"), b"bar");
    }
}
