//! Macro that declares the tables of the file: `table!`.
//!
//! ```text
//! table! {
//!     /// Description of the table.
//!     #[derive(Copy)]
//!     pub struct Example: Default {        // `: Default` where every key has a default
//!         /// Description of the key.
//!         ///
//!         /// Reason for its default.
//!         grace: Duration = time(0, DAY), default(seconds(30));
//!         /// Description of the key.
//!         kind as "type": CheckType, required;
//!     }
//!     parts { ... }                        // keys without a field of their own
//!     with { ... }                         // fields without a key of their own
//!     rules set_fields;                    // plain Rust on the parts, before the struct is made
//!     then refuse_unordered;               // plain Rust on the struct
//! }
//! ```
//!
//! A key has the name of its field, or the one behind `as`; a type; where the type does not say
//! it, a kind with bounds; and what its absence means:
//!
//! - `required`: an error;
//! - `optional`: `None`;
//! - `default(value)`: that value;
//! - `nested`: a sub-table of defaults;
//! - `empty`: the empty value of its type, such as a list without items;
//! - `keys`: not a key but a group of them, which stand in this table;
//! - `given`: the rules of this table, or of the one around it, make the value.
//!
//! `by` names a function that reads the value, `at_start` a key that a reload does not take over.

pub(crate) use super::reader::TableReader;
pub(crate) use super::spec::{KeySpec, Presence, TableSpec, ValueKind};
pub(crate) use super::value::ValueReader;
pub(crate) use super::value_types::{AsWritten, FromValue, HasKind};

/// A list of tables.
impl<T: Declared> HasKind for Vec<T> {
    const KIND: ValueKind = ValueKind::Tables(T::SPEC);
}

/// Keys of a table and how a value is made of them.
pub(crate) trait Declared: Sized {
    const SPEC: &'static TableSpec;

    /// Reads the table and notes what is wrong. `None`: the value cannot be made.
    fn read(table: &TableReader<'_>) -> Option<Self>;

    /// Names of the keys whose values differ.
    fn differing(&self, other: &Self) -> Vec<&'static str>;
}

/// A declared table as its rules see it: the value of each key, `None` where it is missing or
/// wrong, which was noted.
pub(crate) trait InParts: Declared {
    type Parts;

    fn parts(table: &TableReader<'_>) -> Self::Parts;

    fn whole(parts: Self::Parts) -> Option<Self>;
}

pub(crate) type Parts<T> = <T as InParts>::Parts;

macro_rules! table {
    (
        $(#[doc = $doc:literal])+
        $(#[derive($($derive:ident),+)])?
        $vis:vis struct $Name:ident $(: $auto:ident)? {
            $(
                $(#[doc = $key_doc:literal])+
                $field:ident $(as $key:literal)?: $Type:ty $(= $kind:expr)?,
                $presence:ident $(($default:expr))? $(by $read:expr)? $(, $when:ident)?;
            )*
        }
        $(parts {
            $(
                $(#[doc = $part_doc:literal])+
                $part:ident $(as $part_key:literal)?: $Part:ty $(= $part_kind:expr)?,
                $part_presence:ident $(($part_default:expr))? $(by $part_read:expr)?;
            )*
        })?
        $(with {
            $($(#[doc = $extra_doc:literal])+ $extra:ident: $Extra:ty,)+
        })?
        $(rules $rules:path;)?
        $(then $then:path;)?
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq $($(, $derive)+)?)]
        $vis struct $Name {
            $($(#[doc = $key_doc])+ pub $field: $Type,)*
            $($($(#[doc = $extra_doc])+ pub $extra: $Extra,)+)?
        }

        const _: () = {
            use $crate::config::declare as d;

            pub(crate) struct Parts {
                $(pub $field: Option<$Type>,)*
                $($(pub $part: Option<$Part>,)*)?
                $($(pub $extra: Option<$Extra>,)+)?
            }

            impl d::Declared for $Name {
                const SPEC: &'static d::TableSpec = &d::TableSpec {
                    doc: concat!($($doc, "\n"),+),
                    keys: &[
                        $(key_spec!($presence $(($default))?; $field $($key)?; $Type; [$($kind)?];
                            concat!($($key_doc, "\n"),+); [$($when)?]),)*
                        $($(key_spec!($part_presence $(($part_default))?; $part $($part_key)?;
                            $Part; [$($part_kind)?]; concat!($($part_doc, "\n"),+); []),)*)?
                    ],
                };

                fn read(table: &d::TableReader<'_>) -> Option<Self> {
                    let parts = <Self as d::InParts>::parts(table);
                    $(
                        let mut parts = parts;
                        $rules(table, &mut parts);
                    )?
                    let whole = d::InParts::whole(parts);
                    $(
                        let mut whole: Self = whole?;
                        $then(table, &mut whole);
                        let whole = Some(whole);
                    )?
                    whole
                }

                fn differing(&self, other: &Self) -> Vec<&'static str> {
                    let mut keys = Vec::new();
                    $(differing!($presence; keys; self.$field; other.$field;
                        key_name!($field $($key)?));)*
                    keys
                }
            }

            impl d::InParts for $Name {
                type Parts = Parts;

                fn parts(table: &d::TableReader<'_>) -> Parts {
                    Parts {
                        $($field: read_key!(table; $presence $(($default))?;
                            key_name!($field $($key)?); [$($read)?]),)*
                        $($($part: read_key!(table; $part_presence $(($part_default))?;
                            key_name!($part $($part_key)?); [$($part_read)?]),)*)?
                        $($($extra: None,)+)?
                    }
                }

                fn whole(parts: Parts) -> Option<Self> {
                    Some(Self {
                        $($field: parts.$field?,)*
                        $($($extra: parts.$extra?,)+)?
                    })
                }
            }

            impl d::FromValue for $Name {
                fn read(value: &d::ValueReader<'_>) -> Option<Self> {
                    <Self as d::Declared>::read(&d::TableReader::within(value)?)
                }
            }

            impl d::HasKind for $Name {
                const KIND: d::ValueKind = d::ValueKind::Table(<Self as d::Declared>::SPEC);
            }

            default_impl!([$($auto)?] $Name {
                $($field: $presence $(($default))?;)*
                $($($extra: empty;)+)?
            });
        };
    };
}

macro_rules! key_name {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

macro_rules! key_spec {
    (keys; $field:ident; $Type:ty; []; $doc:expr; []) => {
        d::KeySpec {
            name: "",
            kind: d::ValueKind::Inline(<$Type as d::Declared>::SPEC),
            presence: d::Presence::Optional,
            doc: $doc,
            at_start: false,
        }
    };
    ($presence:ident $(($default:expr))?; $field:ident $($key:literal)?; $Type:ty;
        [$($kind:expr)?]; $doc:expr; [$($when:ident)?]) => {
        d::KeySpec {
            name: key_name!($field $($key)?),
            kind: key_kind!($Type; $($kind)?),
            presence: presence!($presence $(($default))?; $Type; key_kind!($Type; $($kind)?)),
            doc: $doc,
            at_start: at_start!($($when)?),
        }
    };
}

macro_rules! key_kind {
    ($Type:ty;) => {
        <$Type as d::HasKind>::KIND
    };
    ($Type:ty; $kind:expr) => {
        $kind
    };
}

macro_rules! at_start {
    () => {
        false
    };
    (at_start) => {
        true
    };
}

macro_rules! presence {
    (required; $Type:ty; $kind:expr) => {
        d::Presence::Required
    };
    (default($default:expr); $Type:ty; $kind:expr) => {
        d::Presence::Default(|| {
            let value: $Type = $default;
            d::AsWritten::as_written(&value, &$kind)
        })
    };
    (nested; $Type:ty; $kind:expr) => {
        d::Presence::Nested
    };
    ($other:ident; $Type:ty; $kind:expr) => {
        d::Presence::Optional
    };
}

macro_rules! read_key {
    ($table:ident; keys; $name:expr; []) => {
        d::Declared::read($table)
    };
    ($table:ident; keys; $name:expr; [$read:expr]) => {
        $read($table)
    };
    ($table:ident; nested; $name:expr; []) => {
        d::Declared::read(&$table.table($name))
    };
    ($table:ident; given; $name:expr; []) => {
        None
    };
    ($table:ident; $presence:ident $(($default:expr))?; $name:expr; []) => {
        read_key!($table; $presence $(($default))?; $name; [d::FromValue::read])
    };
    ($table:ident; default($default:expr); $name:expr; [$read:expr]) => {
        $table.or_default($name, $read, || $default)
    };
    ($table:ident; $presence:ident; $name:expr; [$read:expr]) => {
        $table.$presence($name, $read)
    };
}

macro_rules! differing {
    (keys; $keys:ident; $one:expr; $other:expr; $name:expr) => {
        $keys.extend(d::Declared::differing(&$one, &$other))
    };
    ($presence:ident; $keys:ident; $one:expr; $other:expr; $name:expr) => {
        if $one != $other {
            $keys.push($name);
        }
    };
}

macro_rules! default_impl {
    ([] $Name:ident { $($fields:tt)* }) => {};
    ([Default] $Name:ident { $($field:ident: $presence:ident $(($default:expr))?;)* }) => {
        impl Default for $Name {
            fn default() -> Self {
                Self {
                    $($field: default_value!($presence $(($default))?),)*
                }
            }
        }
    };
}

macro_rules! default_value {
    (default($default:expr)) => {
        $default
    };
    ($other:ident) => {
        Default::default()
    };
}
