-- What wrk sends: one image as a binary tensor of the Open Inference Protocol v2 (binary extension),
-- or the same bytes raw or as a form to a peer. The environment says which; see serve_load.py.
local kind, side = os.getenv("LOAD_KIND"), tonumber(os.getenv("LOAD_SIDE"))
local pixels = string.rep("\114", side * side * 3)

wrk.method = "POST"
if kind == "v2" then
    local header = string.format(
        '{"inputs":[{"name":"images","shape":[1,%d,%d,3],"datatype":"UINT8",' ..
        '"parameters":{"binary_data_size":%d}}],"parameters":{"binary_data_output":true}}',
        side, side, #pixels)
    wrk.body = header .. pixels
    wrk.headers["Content-Type"] = "application/octet-stream"
    wrk.headers["Inference-Header-Content-Length"] = tostring(#header)
elseif kind == "raw" then
    wrk.body = pixels
    wrk.headers["Content-Type"] = "application/octet-stream"
else
    local boundary = "----------------------------loopback"
    wrk.body = "--" .. boundary .. '\r\nContent-Disposition: form-data; name="images"; ' ..
        'filename="images"\r\nContent-Type: application/octet-stream\r\n\r\n' ..
        pixels .. "\r\n--" .. boundary .. "--\r\n"
    wrk.headers["Content-Type"] = "multipart/form-data; boundary=" .. boundary
end

function done(summary, latency)
    local errors = summary.errors
    print(string.format(
        'SUMMARY {"requests":%d,"seconds":%.6f,"p50_ms":%.4f,"p99_ms":%.4f,"failed":%d}',
        summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
