//! What to do about a reason code.

pub fn mend(code: &str) -> Option<&'static str> {
    Some(match code {
        "Creating" => "Wait: it is being brought up. `ondol status` shows its execution environments.",
        "InvalidRuntime" => "Install the runtime; the version is tried again at the next publish.",
        "CapacityProviderScalingLimitExceeded" => {
            "Raise MaxVCpuCount of the capacity provider with UpdateCapacityProvider, or lower MinExecutionEnvironments with PutFunctionScalingConfig."
        }
        "InsufficientCapacity" | "VcpuLimitExceeded" => {
            "Lower the function's MemorySize or MinExecutionEnvironments, or let the capacity provider use larger instance types."
        }
        "FunctionError.RuntimeInitError" => {
            "The function's own code failed while it was loaded: its last lines say where. Correct it, upload it with UpdateFunctionCode and publish again."
        }
        "FunctionError.InitTimeout" => {
            "Loading the function took too long: move slow work into the handler, or raise the function's Timeout."
        }
        "FunctionError.InitResourceExhausted" => "Raise the function's MemorySize.",
        "FunctionError.InvalidEntryPoint" => {
            "The program to start isn't where it should be: check Handler, and for provided.al2023 that the package has an executable named bootstrap at its top, built for this machine."
        }
        "FunctionError.PermissionDenied" => "Give the program the executable bit in the deployment package.",
        "FunctionError.ExtensionInitError" => {
            "An extension in one of the layers failed: its lines say why. Correct it, publish the layer again and use its new version."
        }
        "FunctionError.TooManyExtensions" => {
            "Use fewer layers with extensions: ten extensions are the limit."
        }
        "InvalidZipFileException" => "Upload the package again with UpdateFunctionCode, or restore a backup.",
        "InternalError" => "This machine couldn't make an execution environment: run `ondol doctor`.",
        _ => return None,
    })
}
