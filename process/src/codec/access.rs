//! What a type may ask of a value that consists of others, while it is being read.

use serde::de::{
    DeserializeSeed, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::decode::Decoder;
use super::error::{Fault, Problem};
use super::notes::Notes;

/// What is left of a sequence, a tuple or a map.
pub(super) struct Elements<'d, D> {
    pub(super) decoder: &'d mut D,
    pub(super) left: usize,
}

impl<'de, N: Notes> Elements<'_, Decoder<'de, '_, N>> {
    /// More elements than bytes are not worth memory before they have been seen.
    #[inline]
    fn hint(&self) -> Option<usize> {
        (self.left <= self.decoder.reader.left()).then_some(self.left)
    }

    #[inline]
    fn next<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                seed.deserialize(&mut *self.decoder).map(Some)
            }
            None => Ok(None),
        }
    }
}

impl<'de, N: Notes> SeqAccess<'de> for Elements<'_, Decoder<'de, '_, N>> {
    type Error = Fault;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        self.next(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

impl<'de, N: Notes> MapAccess<'de> for Elements<'_, Decoder<'de, '_, N>> {
    type Error = Fault;

    #[inline]
    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        self.next(seed)
    }

    #[inline]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(&mut *self.decoder)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.hint()
    }
}

/// A struct, or a variant with named fields, which says how many it has.
pub(super) struct Fields<'d, D> {
    pub(super) decoder: &'d mut D,
    pub(super) written: u8,
    pub(super) read: usize,
    pub(super) name: &'static str,
    pub(super) note: usize,
    /// What the fields may be called where they are read.
    pub(super) names: &'static [&'static str],
}

impl<'de, N: Notes> Fields<'_, Decoder<'de, '_, N>> {
    /// Names the fields that only one side has, if there are notes of what was written.
    #[cold]
    pub(super) fn lossy(&self, attribute: &str) -> Fault {
        let written = self.decoder.notes.fields(self.note);
        let only = |these: &[&str], others: &[&str]| {
            let only = these.iter().filter(|field| !others.contains(field));
            only.map(|&field| field.to_owned()).collect()
        };
        Fault::new(Problem::Lossy {
            container: self.name.to_owned(),
            fields: match written {
                [] => Vec::new(),
                _ if self.read > self.written.into() => only(self.names, written),
                _ => only(written, self.names),
            },
            attribute: attribute.to_owned(),
        })
    }
}

impl<'de, N: Notes> SeqAccess<'de> for Fields<'_, Decoder<'de, '_, N>> {
    type Error = Fault;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        self.read += 1;
        if self.read > self.written.into() && self.written < u8::MAX {
            return Err(self.lossy("skip_serializing"));
        }
        seed.deserialize(&mut *self.decoder).map(Some)
    }
}

/// A variant whose number is still to be read, or has been.
pub(super) struct Variant<'d, D> {
    pub(super) decoder: &'d mut D,
    pub(super) name: &'static str,
    pub(super) note: usize,
}

impl<'de, N: Notes> EnumAccess<'de> for Variant<'_, Decoder<'de, '_, N>> {
    type Error = Fault;
    type Variant = Self;

    #[inline]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Fault> {
        let index: u32 = self.decoder.reader.small()?;
        let value = seed.deserialize(IntoDeserializer::<Fault>::into_deserializer(index))?;
        Ok((value, self))
    }
}

impl<'de, N: Notes> VariantAccess<'de> for Variant<'_, Decoder<'de, '_, N>> {
    type Error = Fault;

    #[inline]
    fn unit_variant(self) -> Result<(), Fault> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        self.decoder.nested(|decoder| seed.deserialize(decoder))
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        self.decoder.tuple(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.decoder.fields(self.name, self.note, fields, visitor)
    }
}
