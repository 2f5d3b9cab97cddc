//! `#[remote]` on a function.
//!
//! The one thing to know: the function stays as it is. Beside it comes an empty enum of its name,
//! which has `remote` and `options`, and one static that tells workers of the function. An enum and
//! not a module: like a module it is a type's name and no value's, so that both stand side by side
//! and locals may shadow the function; but types mean in it what they mean in the function, also
//! where that is inside another function. This file must not know how arguments are packed.

use crate::settings::Settings;
use crate::signature::{Signature, own};
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::{Error, Ident, ItemFn, Visibility};

pub(crate) fn expand(settings: &Settings, function: &ItemFn) -> syn::Result<TokenStream> {
    if let Some(receiver) = function.sig.receiver() {
        let text = "`remote` on a method needs `remote` on its impl block, which must not be a trait's";
        return Err(Error::new_spanned(receiver, text));
    }
    let signature = Signature::of(&function.sig, None, Some(settings))?;
    signature.check_parts(settings.num_returns)?;
    let (name, vis, krate) = (&function.sig.ident, &function.vis, settings.krate());
    let (remotes, registered) = (remotes(settings, &signature, name, vis), registered(settings, &signature, name));
    let summary = format!("The function `{name}` as a task: `{name}::remote(&ray, ..)` has a worker run it.");
    Ok(quote! {
        #function

        #[doc = #summary]
        #[allow(non_camel_case_types)]
        #[derive(Debug)]
        #vis enum #name {}

        const _: () = {
            use #krate::__private as __ray;

            #remotes
            #registered
        };
    })
}

/// `remote`, of the function and of the function with options.
fn remotes(settings: &Settings, signature: &Signature, name: &Ident, vis: &Visibility) -> TokenStream {
    let [ray, arguments] = ["ray", "arguments"].map(own);
    let (accepted, value) = (signature.accepted(), signature.value());
    let refs = signature.refs(settings.num_returns);
    let pack = signature.pack(&quote!(#ray), &arguments);
    let remote = |receiver: TokenStream, options: TokenStream| {
        let submit = match settings.num_returns {
            Some(parts) => quote!(__ray::submit_parts::<#value>(#ray, &__RAY_FUNCTION, #arguments, #options, #parts)),
            None if signature.is_stream() => {
                quote!(__ray::submit_stream(#ray, &__RAY_FUNCTION, #arguments, #options))
            }
            None => quote!(__ray::submit_one(#ray, &__RAY_FUNCTION, #arguments, #options)),
        };
        quote! {
            #[doc = "Has a worker run it; returns a reference to its result at once."]
            #[allow(clippy::too_many_arguments)]
            #vis fn remote(
                #receiver
                #ray: &__ray::Raylet,
                #accepted
            ) -> ::core::result::Result<#refs, __ray::SubmitError> {
                #pack
                #submit
            }
        }
    };
    let (plain, with_options) = (
        remote(quote!(), quote!(::core::option::Option::None)),
        remote(quote!(&self,), quote!(::core::option::Option::Some(&self.0))),
    );
    // No name that a type of the signature could have.
    let configured = format_ident!("{}_with_options", name.unraw(), span = Span::call_site());
    quote! {
        impl #name {
            #plain

            #[doc = "The same function; calls have these options, and where they are silent the attribute's."]
            #vis fn options(options: __ray::Options) -> #configured {
                #configured(options)
            }
        }

        #[doc = "A remote function with options for its calls."]
        #[allow(non_camel_case_types)]
        #[derive(Clone, Debug)]
        pub struct #configured(__ray::Options);

        impl #configured {
            #with_options
        }
    }
}

/// What workers know of the function. The names are such as no function has that is called here.
fn registered(settings: &Settings, signature: &Signature, name: &Ident) -> TokenStream {
    let [ray, arguments, results] = ["ray", "arguments", "results"].map(own);
    let run = signature.run(&quote!(#name), &quote!(__RAY_NAME), settings.num_returns);
    let (options, types, text) = (settings.options(), signature.text(), name.unraw().to_string());
    let (body, run) = match signature.is_async {
        false => (
            quote!(__ray::Body::Sync(__ray_run)),
            quote! {
                #[allow(unused_mut, deprecated)]
                fn __ray_run(
                    #ray: &__ray::Raylet,
                    mut #arguments: __ray::Incoming<'_>,
                    #results: &mut dyn __ray::Results,
                ) -> ::core::result::Result<(), __ray::TaskError> {
                    #run
                }
            },
        ),
        true => (
            quote!(__ray::Body::Async(__ray_run)),
            quote! {
                #[allow(unused_mut, deprecated)]
                fn __ray_run<'a>(
                    #ray: &'a __ray::Raylet,
                    mut #arguments: __ray::Incoming<'a>,
                    #results: &'a mut dyn __ray::Results,
                ) -> __ray::TaskFuture<'a> {
                    ::std::boxed::Box::pin(async move { #run })
                }
            },
        ),
    };
    quote! {
        const __RAY_NAME: &str = ::core::concat!(::core::module_path!(), "::", #text);

        #run

        fn __ray_options() -> __ray::Options {
            #options
        }

        #[__ray::linkme::distributed_slice(__ray::FUNCTIONS)]
        #[linkme(crate = __ray::linkme)]
        static __RAY_FUNCTION: __ray::Function = __ray::Function {
            key: __ray::key(::core::concat!(::core::module_path!(), "::", #text, #types)),
            name: __RAY_NAME,
            place: (::core::file!(), ::core::line!()),
            body: #body,
            options: __ray_options,
        };
    }
}
