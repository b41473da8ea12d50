# raudo_find_backends() finds the runtimes; raudo_add_backends(TARGET) compiles a file into TARGET for
# each, and what is made of those files links RAUDO_BACKEND_LIBRARIES.

# Where pip installed a Python package: in VIRTUAL_ENV, in the project's .venv, or the system's.
function(raudo_find_wheel package result)
  find_package(Python3 QUIET COMPONENTS Interpreter)
  set(project_python ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../../.venv/bin/python)
  foreach(python "$ENV{VIRTUAL_ENV}/bin/python" ${project_python} "${Python3_EXECUTABLE}")
    if(EXISTS "${python}")
      execute_process(
        COMMAND ${python} -c
          "import importlib.util as u; print(u.find_spec('${package}').submodule_search_locations[0])"
        OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE failed)
      if(NOT failed)
        set(${result} ${folder} PARENT_SCOPE)
        return()
      endif()
    endif()
  endforeach()
  set(${result} "" PARENT_SCOPE)
endfunction()

macro(raudo_find_openvino)
  find_package(OpenVINO QUIET COMPONENTS Runtime)
  if(NOT OpenVINO_FOUND)
    raudo_find_wheel(openvino wheel)
    find_package(OpenVINO QUIET COMPONENTS Runtime PATHS ${wheel}/cmake NO_DEFAULT_PATH)
  endif()
  # Older ones decode in FP16 what an FP16 engine says is FP32, without a word. As pyproject.toml says.
  if(OpenVINO_FOUND AND OpenVINO_VERSION VERSION_LESS 2026.3)
    message(STATUS "raudo: OpenVINO ${OpenVINO_VERSION} is left out: it has to be 2026.3 or newer")
    set(OpenVINO_FOUND FALSE)
  endif()
  set(RAUDO_OPENVINO_LIBRARIES openvino::runtime)
endmacro()

macro(raudo_find_onnxruntime)
  find_package(OnnxRuntime QUIET)
  set(RAUDO_ONNXRUNTIME_LIBRARIES OnnxRuntime::OnnxRuntime)
endmacro()

macro(raudo_find_tensorrt)
  find_package(TensorRT QUIET)
  set(RAUDO_TENSORRT_LIBRARIES TensorRT::TensorRT)
endmacro()

# Sets RAUDO_BACKENDS, the options of those that were found. A macro: languages are enabled at file scope.
macro(raudo_find_backends)
  set(RAUDO_BACKENDS "")
  set(RAUDO_BACKEND_LIBRARIES "")
  foreach(entry "OPENVINO;OpenVINO" "ONNXRUNTIME;OnnxRuntime" "TENSORRT;TensorRT")
    list(GET entry 0 option)
    list(GET entry 1 package)
    string(TOLOWER ${option} file)
    if(RAUDO_${option})
      cmake_language(CALL raudo_find_${file})
      if(${package}_FOUND)
        list(APPEND RAUDO_BACKENDS ${option})
        list(APPEND RAUDO_BACKEND_LIBRARIES ${RAUDO_${option}_LIBRARIES})
      elseif(NOT RAUDO_${option} STREQUAL AUTO)
        message(FATAL_ERROR "${package} was asked for (RAUDO_${option}=${RAUDO_${option}}), but was "
                            "not found; ${package}_ROOT, or what README.md says of it, names its place")
      endif()
    endif()
  endforeach()
  if(NOT RAUDO_BACKENDS)
    message(FATAL_ERROR
      "No runtime was found, and the detector needs at least one of them:\n"
      "  OpenVINO      pip install openvino, or set OpenVINO_DIR\n"
      "  ONNX Runtime  set ONNXRUNTIME_ROOT (include and lib), or install libonnxruntime-dev\n"
      "  TensorRT      set TENSORRT_ROOT (include and lib), and have the CUDA toolkit")
  endif()
  message(STATUS "raudo: runtimes: ${RAUDO_BACKENDS}")
  if("TENSORRT" IN_LIST RAUDO_BACKENDS)
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES all-major)  # of those that this nvcc knows
    endif()
    set(CMAKE_CUDA_STANDARD 17)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
    enable_language(CUDA)
  endif()
endmacro()

function(raudo_add_backends target)
  foreach(option IN LISTS RAUDO_BACKENDS)
    string(TOLOWER ${option} file)
    target_sources(${target} PRIVATE src/backends/${file}.cpp)
    target_compile_definitions(${target} PRIVATE RAUDO_WITH_${option})
    target_link_libraries(${target} PRIVATE ${RAUDO_${option}_LIBRARIES})
  endforeach()
  if("TENSORRT" IN_LIST RAUDO_BACKENDS)
    target_sources(${target} PRIVATE src/backends/lane.cpp src/backends/letterbox.cu)
  endif()
endfunction()
