// The names of the runtime's errors, those that we know.
#include "device.h"

static const struct {
    cudaError_t error;
    const char *name, *text;
} table[] = {
#define ROW(error, text) {error, #error, text},
    ROW(cudaSuccess, "no error") ROW(cudaErrorInvalidValue, "invalid argument") ROW(
        cudaErrorMemoryAllocation, "out of memory") ROW(cudaErrorInitializationError,
                                                        "initialization error")
        ROW(cudaErrorInvalidConfiguration, "invalid configuration argument") ROW(
            cudaErrorInsufficientDriver,
            "CUDA driver version is insufficient for CUDA runtime "
            "version") ROW(cudaErrorDevicesUnavailable,
                           "CUDA-capable device(s) is/are busy or "
                           "unavailable") ROW(cudaErrorNoDevice,
                                              "no CUDA-capable device "
                                              "is "
                                              "detected") ROW(cudaErrorInvalidDevice,
                                                              "invalid device ordinal")
            ROW(cudaErrorInvalidResourceHandle, "invalid resource handle") ROW(
                cudaErrorIllegalState, "the operation cannot be performed in the present "
                                       "state") ROW(cudaErrorNotReady, "device not ready")
                ROW(cudaErrorIllegalAddress, "an illegal memory access was encountered") ROW(
                    cudaErrorMisalignedAddress, "misaligned address")
                    ROW(cudaErrorIllegalInstruction, "an illegal instruction was encountered") ROW(
                        cudaErrorLaunchOutOfResources,
                        "too many resources requested for launch") ROW(cudaErrorLaunchFailure,
                                                                       "unspecified launch failure")
                        ROW(cudaErrorLaunchTimeout, "the launch timed out and was terminated") ROW(
                            cudaErrorECCUncorrectable, "uncorrectable ECC error encountered")
                            ROW(cudaErrorNoKernelImageForDevice,
                                "no kernel image is available for execution on the device")
                                ROW(cudaErrorNotSupported, "operation not supported") ROW(
                                    cudaErrorStreamCaptureUnsupported,
                                    "operation not permitted when stream is capturing")
                                    ROW(cudaErrorStreamCaptureInvalidated,
                                        "operation failed due to a previous error during capture")
                                        ROW(cudaErrorStreamCaptureMerge,
                                            "operation would result in a merge of separate "
                                            "captures") ROW(cudaErrorStreamCaptureUnmatched,
                                                            "capture was not ended in the same "
                                                            "stream as it began")
                                            ROW(cudaErrorStreamCaptureUnjoined,
                                                "capturing stream has unjoined work")
                                                ROW(cudaErrorStreamCaptureIsolation,
                                                    "dependency created on uncaptured work in "
                                                    "another stream")
                                                    ROW(cudaErrorStreamCaptureImplicit,
                                                        "operation would make the legacy stream "
                                                        "depend on a capture")
                                                        ROW(cudaErrorStreamCaptureWrongThread,
                                                            "capture ended by a thread that did "
                                                            "not begin it")
                                                            ROW(cudaErrorCapturedEvent,
                                                                "operation not permitted on an "
                                                                "event last recorded in a capture")
                                                                ROW(cudaErrorUnknown,
                                                                    "unknown error")
#undef ROW
};

const char *cudaGetErrorName(cudaError_t error)
{
    for (const auto &row : table)
        if (row.error == error)
            return row.name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    for (const auto &row : table)
        if (row.error == error)
            return row.text;
    return "unrecognized error code";
}
