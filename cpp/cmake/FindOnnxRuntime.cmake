# Finds ONNX Runtime: its headers below ONNXRUNTIME_ROOT or in the system, its library there too or
# in the wheel that pip installed. The C API is stable: older headers go with a newer library.
#
# Makes the target OnnxRuntime::OnnxRuntime.

find_path(OnnxRuntime_INCLUDE_DIR onnxruntime_cxx_api.h
  HINTS ${ONNXRUNTIME_ROOT} ENV ONNXRUNTIME_ROOT ${CMAKE_CURRENT_LIST_DIR}/../../.venv/onnxruntime-dev
  PATH_SUFFIXES include include/onnxruntime usr/include/onnxruntime
                include/onnxruntime/core/session)
find_library(OnnxRuntime_LIBRARY onnxruntime
  HINTS ${ONNXRUNTIME_ROOT} ENV ONNXRUNTIME_ROOT PATH_SUFFIXES lib lib64)
if(NOT OnnxRuntime_LIBRARY)
  raudo_find_wheel(onnxruntime wheel)
  file(GLOB library ${wheel}/capi/libonnxruntime.so.* ${wheel}/capi/libonnxruntime.*.dylib)
  if(library)
    # The loader looks for the name inside of the library, under which the wheel does not have it.
    set(OnnxRuntime_LIBRARY ${CMAKE_BINARY_DIR}/runtimes/libonnxruntime.so.1)
    file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/runtimes)
    file(CREATE_LINK ${library} ${OnnxRuntime_LIBRARY} SYMBOLIC)
    install(FILES ${OnnxRuntime_LIBRARY} TYPE LIB)
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(OnnxRuntime REQUIRED_VARS OnnxRuntime_LIBRARY OnnxRuntime_INCLUDE_DIR)
if(OnnxRuntime_FOUND AND NOT TARGET OnnxRuntime::OnnxRuntime)
  add_library(OnnxRuntime::OnnxRuntime UNKNOWN IMPORTED)
  set_target_properties(OnnxRuntime::OnnxRuntime PROPERTIES
    IMPORTED_LOCATION ${OnnxRuntime_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${OnnxRuntime_INCLUDE_DIR})
endif()
