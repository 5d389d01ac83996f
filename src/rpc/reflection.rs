//! `grpc.reflection.v1`: describes the served API to tools such as grpcurl.

use std::sync::LazyLock;

use basalt_proto::DESCRIPTORS;
use basalt_proto::reflection::server_reflection_request::MessageRequest;
use basalt_proto::reflection::server_reflection_response::MessageResponse;
use basalt_proto::reflection::{
    ErrorResponse, FileDescriptorResponse, ListServiceResponse, ServerReflectionRequest,
    ServerReflectionResponse, ServiceResponse,
};
use basalt_proto::server::reflection::server_reflection_server;
use futures_lite::{Stream, StreamExt as _};
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use tonic::{Code, Request, Response, Status, Streaming, async_trait};

/// The descriptors of the served files, from the build. Decoded at the first request, since most members get none;
/// comments in the files are not for clients, and would take most of the memory.
static FILES: LazyLock<Vec<FileDescriptorProto>> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default().file;
    let bare = |file| FileDescriptorProto { source_code_info: None, ..file };
    files.into_iter().map(bare).collect()
});

#[derive(Clone)]
pub(super) struct Reflection;

fn messages(package: &str, messages: &[DescriptorProto], symbol: &str) -> bool {
    messages.iter().any(|message| {
        let name = format!("{package}.{}", message.name());
        name == symbol || messages_below(&name, message, symbol)
    })
}

fn messages_below(name: &str, message: &DescriptorProto, symbol: &str) -> bool {
    let enums = message.enum_type.iter().any(|it| format!("{name}.{}", it.name()) == symbol);
    enums || messages(name, &message.nested_type, symbol)
}

fn declares(file: &FileDescriptorProto, symbol: &str) -> bool {
    let package = file.package();
    let named = |name: &str| format!("{package}.{name}") == symbol;
    let service = file.service.iter().any(|service| {
        let name = format!("{package}.{}", service.name());
        name == symbol || service.method.iter().any(|it| format!("{name}.{}", it.name()) == symbol)
    });
    service
        || file.enum_type.iter().any(|it| named(it.name()))
        || messages(package, &file.message_type, symbol)
}

impl Reflection {
    fn answer(asked: &MessageRequest) -> MessageResponse {
        let file = match asked {
            MessageRequest::ListServices(_) => return Self::services(),
            MessageRequest::FileByFilename(name) => FILES.iter().find(|it| it.name() == name),
            MessageRequest::FileContainingSymbol(symbol) => {
                FILES.iter().find(|file| declares(file, symbol))
            }
            MessageRequest::FileContainingExtension(_)
            | MessageRequest::AllExtensionNumbersOfType(_) => None,
        };
        match file {
            Some(file) => MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                file_descriptor_proto: Self::with_imports(file),
            }),
            None => MessageResponse::ErrorResponse(ErrorResponse {
                error_code: Code::NotFound as i32,
                error_message: "not found".to_owned(),
            }),
        }
    }

    fn services() -> MessageResponse {
        let named = |file: &FileDescriptorProto| {
            let package = file.package().to_owned();
            let services = file.service.clone().into_iter();
            services.map(move |it| ServiceResponse { name: format!("{package}.{}", it.name()) })
        };
        let service = FILES.iter().flat_map(named).collect();
        MessageResponse::ListServicesResponse(ListServiceResponse { service })
    }

    /// A file and all its imports, itself first.
    fn with_imports(file: &FileDescriptorProto) -> Vec<bytes::Bytes> {
        let mut files = vec![file];
        let mut at = 0;
        while let Some(file) = files.get(at) {
            let imports = file.dependency.iter();
            let found = imports.filter_map(|name| FILES.iter().find(|it| it.name() == name));
            let new: Vec<_> =
                found.filter(|it| files.iter().all(|old| old.name() != it.name())).collect();
            files.extend(new);
            at += 1;
        }
        files.iter().map(|file| file.encode_to_vec().into()).collect()
    }
}

#[async_trait]
impl server_reflection_server::ServerReflection for Reflection {
    type ServerReflectionInfoStream =
        std::pin::Pin<Box<dyn Stream<Item = Result<ServerReflectionResponse, Status>> + Send>>;

    async fn server_reflection_info(
        &self,
        request: Request<Streaming<ServerReflectionRequest>>,
    ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
        let answers = request.into_inner().map(|asked| {
            let asked = asked?;
            let message_response = asked.message_request.as_ref().map(Self::answer);
            Ok(ServerReflectionResponse {
                valid_host: asked.host.clone(),
                original_request: Some(asked),
                message_response,
            })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
