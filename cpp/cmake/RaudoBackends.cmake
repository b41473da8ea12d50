# Finds the runtimes; raudo_add_backends(TARGET) compiles a file into TARGET for each.
#
# Sets RAUDO_BACKEND_LIBRARIES, what a target made of those files links.

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

function(raudo_add_backends target)
  set(names "")
  set(libraries "")
  foreach(entry "OPENVINO;OpenVINO" "ONNXRUNTIME;OnnxRuntime" "TENSORRT;TensorRT")
    list(GET entry 0 option)
    list(GET entry 1 package)
    string(TOLOWER ${option} file)
    if(NOT RAUDO_${option})
      continue()
    endif()
    cmake_language(CALL raudo_find_${file})
    if(${package}_FOUND)
      target_sources(${target} PRIVATE src/backends/${file}.cpp)
      target_compile_definitions(${target} PRIVATE RAUDO_WITH_${option})
      target_link_libraries(${target} PRIVATE ${RAUDO_${option}_LIBRARIES})
      list(APPEND libraries ${RAUDO_${option}_LIBRARIES})
      list(APPEND names ${package})
    elseif(NOT RAUDO_${option} STREQUAL AUTO)
      message(FATAL_ERROR "${package} was asked for (RAUDO_${option}=${RAUDO_${option}}), but was "
                          "not found; ${package}_ROOT, or what README.md says of it, names its place")
    endif()
  endforeach()
  if(NOT names)
    message(FATAL_ERROR
      "No runtime was found, and the detector needs at least one of them:\n"
      "  OpenVINO      pip install openvino, or set OpenVINO_DIR\n"
      "  ONNX Runtime  set ONNXRUNTIME_ROOT (include and lib), or install libonnxruntime-dev\n"
      "  TensorRT      set TENSORRT_ROOT (include and lib), and have the CUDA toolkit")
  endif()
  list(JOIN names ", " names)
  message(STATUS "raudo: runtimes: ${names}")
  if("TensorRT" IN_LIST names)
    raudo_add_kernels(${target})
  endif()
  set(RAUDO_BACKEND_LIBRARIES ${libraries} PARENT_SCOPE)
endfunction()

# The CUDA kernels: for every architecture of Turing and later that this nvcc knows.
function(raudo_add_kernels target)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES all-major)
  endif()
  enable_language(CUDA)
  target_sources(${target} PRIVATE src/backends/letterbox.cu)
  set_target_properties(${target} PROPERTIES CUDA_STANDARD 17 CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}")
endfunction()
