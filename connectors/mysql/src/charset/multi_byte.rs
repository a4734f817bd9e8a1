//! The multi-byte sets of East Asia, by `encoding_rs`.

use super::NotOfCharset;
use encoding_rs::{BIG5, EUC_JP, EUC_KR, Encoding, GB18030, GBK, SHIFT_JIS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Multi {
    Big5,
    Gb2312,
    Gbk,
    Gb18030,
    Sjis,
    Cp932,
    Ujis,
    EucJpMs,
    EucKr,
}

impl Multi {
    fn encoding(self) -> &'static Encoding {
        match self {
            Self::Big5 => BIG5,
            Self::Gb2312 | Self::Gbk => GBK,
            Self::Gb18030 => GB18030,
            Self::Sjis | Self::Cp932 => SHIFT_JIS,
            Self::Ujis | Self::EucJpMs => EUC_JP,
            Self::EucKr => EUC_KR,
        }
    }

    pub(super) fn decode(self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), NotOfCharset> {
        let text =
            self.encoding().decode_without_bom_handling_and_without_replacement(bytes).ok_or(NotOfCharset)?;
        out.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
