-- wrk's script: one kind of request, paced where asked for. `wrk … -s load.lua URL -- METHOD PATH KEY MODEL PAUSE_MS COUNT`
-- MODEL: of a request for one image by a random seed; "-": no body. PAUSE_MS: every connection waits for a random time
-- (exponential, with this mean) before each request: many connections then make nearly random arrivals. COUNT "1": count by
-- status and look for Retry-After, which costs wrk some time. The last line is JSON.

local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  method, path, key, model = args[1], args[2], args[3], args[4]
  pause_ms, good, busy, unclear = tonumber(args[5]), 0, 0, 0
  headers = {["Authorization"] = "Bearer " .. key}
  if model ~= "-" then headers["Content-Type"] = "application/json" end
  math.randomseed(1 + number)
  if pause_ms == 0 then delay = nil end
  if args[6] ~= "1" then response = nil end
  fixed = model == "-" and wrk.format(method, path, headers) or nil
end

function request()
  if fixed then return fixed end
  local body = string.format('{"model": "%s", "n": 1, "seed": %d}', model, math.random(0, 2000000000))
  return wrk.format(method, path, headers, body)
end

function delay()
  return -pause_ms * math.log(1 - math.random())
end

function response(status, answered, body)
  if status == 200 then
    good = good + 1
  elseif status == 429 and (answered["retry-after"] or answered["Retry-After"]) then
    busy = busy + 1
  else
    unclear = unclear + 1
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  local sums = {good = 0, busy = 0, unclear = 0}
  for _, thread in ipairs(threads) do
    for name in pairs(sums) do sums[name] = sums[name] + thread:get(name) end
  end
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "broken": %d, "not_2xx": %d, "good": %d, "busy": %d, "unclear": %d, ' ..
    '"p50_ms": %.4f, "p99_ms": %.4f}',
    summary.requests, summary.duration / 1e6, errors.connect + errors.read + errors.write + errors.timeout, errors.status,
    sums.good, sums.busy, sums.unclear, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
