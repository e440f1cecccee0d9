//! The methods that the tracker can serve, read from their descriptors.

use std::collections::HashSet;

use prost::Message as _;
use proto::pb;

/// All methods with a descriptor: service, path, and whether the method streams in either direction.
fn all_methods() -> impl Iterator<Item = (String, String, bool)> {
    let sets = [
        pb::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let files = sets.into_iter().filter_map(|set| prost_types::FileDescriptorSet::decode(set).ok());
    files.flat_map(|set| set.file).flat_map(|file| {
        let package = file.package().to_owned();
        file.service.into_iter().flat_map(move |service| {
            let name = format!("{package}.{}", service.name());
            service.method.into_iter().map(move |method| {
                let streams = method.client_streaming() || method.server_streaming();
                (name.clone(), format!("/{name}/{}", method.name()), streams)
            })
        })
    })
}

/// The paths of a service's methods. Empty for a service without a descriptor.
pub(super) fn methods(service: &str) -> Vec<String> {
    all_methods().filter(|(of, ..)| of == service).map(|(_, path, _)| path).collect()
}

/// The paths of all methods that stream in either direction.
pub(super) fn streaming_methods() -> HashSet<String> {
    all_methods().filter(|(.., streams)| *streams).map(|(_, path, _)| path).collect()
}
