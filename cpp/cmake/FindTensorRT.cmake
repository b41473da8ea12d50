# Finds TensorRT 8.5 to 11, or TensorRT for RTX, below TENSORRT_ROOT or in the system, and CUDA.
# Wheels hold the libraries under their versioned names only, and no headers: name the folder of each,
# TENSORRT_ROOT "LIBRARIES;HEADERS".
#
# Makes the target TensorRT::TensorRT.

find_path(TensorRT_INCLUDE_DIR NvInfer.h
  HINTS ${TENSORRT_ROOT} ENV TENSORRT_ROOT PATH_SUFFIXES include)
find_library(TensorRT_LIBRARY
  NAMES nvinfer nvinfer_11 nvinfer_10 tensorrt_rtx
        libnvinfer.so.11 libnvinfer.so.10 libnvinfer.so.8 libtensorrt_rtx.so.1
  HINTS ${TENSORRT_ROOT} ENV TENSORRT_ROOT PATH_SUFFIXES lib lib64)
find_package(CUDAToolkit QUIET)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TensorRT
  REQUIRED_VARS TensorRT_LIBRARY TensorRT_INCLUDE_DIR CUDAToolkit_FOUND)
if(TensorRT_FOUND AND NOT TARGET TensorRT::TensorRT)
  add_library(TensorRT::TensorRT UNKNOWN IMPORTED)
  set_target_properties(TensorRT::TensorRT PROPERTIES
    IMPORTED_LOCATION ${TensorRT_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${TensorRT_INCLUDE_DIR}
    INTERFACE_LINK_LIBRARIES CUDA::cudart)
endif()
