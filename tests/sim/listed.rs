//! Enums of which every variant is in a list.

/// Makes an enum, and with it the list of its variants, in their order: none can be missing there.
macro_rules! listed {
    (
        $(#[$attribute:meta])*
        $visible:vis enum $name:ident as $list:ident {
            $($(#[$described:meta])* $variant:ident,)*
        }
    ) => {
        $(#[$attribute])*
        $visible enum $name {
            $($(#[$described])* $variant,)*
        }

        /// Each of them.
        $visible const $list: &[$name] = &[$($name::$variant,)*];
    };
}

pub(crate) use listed;
