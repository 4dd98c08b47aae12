//! Structs of flags, which a configuration lists by their words.

/// Declares a struct of flags, of which the file lists the words of those that are set.
macro_rules! flags {
    (
        $(#[doc = $doc:literal])+
        $vis:vis struct $Name:ident {
            $($(#[doc = $flag_doc:literal])+ $flag:ident,)+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        $vis struct $Name {
            $($(#[doc = $flag_doc])+ pub $flag: bool,)+
        }

        const _: () = {
            use $crate::config::declare as d;

            const WORDS: &[&str] = &[$(stringify!($flag)),+];

            impl d::FromValue for $Name {
                fn read(value: &d::ValueReader<'_>) -> Option<Self> {
                    let words = value.words(WORDS);
                    Some(Self {
                        $($flag: words.contains(&stringify!($flag)),)+
                    })
                }
            }

            impl d::HasKind for $Name {
                const KIND: d::ValueKind = d::ValueKind::Words(|| WORDS.to_vec());
            }

            impl d::AsWritten for $Name {
                fn as_written(&self, _: &d::ValueKind) -> serde_json::Value {
                    let mut set = Vec::new();
                    $(if self.$flag {
                        set.push(stringify!($flag));
                    })+
                    set.into()
                }
            }
        };
    };
}
