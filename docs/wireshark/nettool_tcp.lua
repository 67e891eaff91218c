-- The part of the Wireshark dissector for TCP: prefaces, sealed records, and frames (docs/protocol.md). nettool.lua
-- loads this file and hands over what both parts need. If Wireshark loads it as a plugin of its own, it does nothing.

local shared = ...
if type(shared) ~= "table" then
    return
end

local nettool_tcp = Proto("nettool_tcp", "nettool over TCP")

local MAGIC = "\142NETTOOL"
local PREFACE_BYTES, LENGTH_BYTES, TAG_BYTES, FRAME_BYTES = 14, 4, 16, 24
local MAX_RECORD_BYTES, MAX_FRAME_BYTES = 1024 * 1024, 16 * 1024 * 1024 -- far above what a correct peer sends
local MESSAGE, CONTENT, CLOSE = 1, 2, 3
local HELLO, JOIN = 1, 7
local MAX_TRIES = 4 -- records of a direction for which all keys are tried
local CLEAR, OPENED, NO_KEYS, FORGED = 0, 1, 2, 3

local f = {
    type = ProtoField.uint8("nettool_tcp.type", "preface", base.DEC, shared.prefaces),
    version = ProtoField.uint16("nettool_tcp.version", "version"),
    length = ProtoField.uint16("nettool_tcp.length", "length of the parameters"),
    parameter_id = ProtoField.uint16("nettool_tcp.parameter.id", "id", base.DEC, shared.preface_parameters),
    parameter_value = ProtoField.bytes("nettool_tcp.parameter.value", "value"),
    streams = ProtoField.uint16("nettool_tcp.streams", "connections of the session"),
    number = ProtoField.uint16("nettool_tcp.number", "number of the connection"),
    token = ProtoField.bytes("nettool_tcp.token", "token of the session"),
    reason = ProtoField.uint8("nettool_tcp.reason", "reason", base.DEC, shared.preface_refusals),
    record_length = ProtoField.uint32("nettool_tcp.record.length", "length of the record"),
    record_number = ProtoField.uint64("nettool_tcp.record.number", "number of the record under its keys"),
    protection = ProtoField.uint8("nettool_tcp.protection", "protection", base.DEC, shared.protection),
    generation = ProtoField.uint32("nettool_tcp.key_generation", "generation of the keys"),
    aead = ProtoField.string("nettool_tcp.aead", "AEAD"),
    sealed = ProtoField.bytes("nettool_tcp.sealed", "protected frames"),
    tag = ProtoField.bytes("nettool_tcp.tag", "authentication tag"),
    frame_type = ProtoField.uint8("nettool_tcp.frame.type", "frame", base.DEC, { "message", "content", "close" }),
    frame_file = ProtoField.uint32("nettool_tcp.frame.file", "file id"),
    frame_offset = ProtoField.uint64("nettool_tcp.frame.offset", "offset in the file"),
    frame_length = ProtoField.uint64("nettool_tcp.frame.length", "length"),
    close_code = ProtoField.uint32("nettool_tcp.close.code", "code"),
    close_reason = ProtoField.string("nettool_tcp.close.reason", "reason"),
}
nettool_tcp.fields = f

local malformed = ProtoExpert.new("nettool_tcp.malformed", "Malformed", expert.group.MALFORMED, expert.severity.ERROR)
local forged = ProtoExpert.new("nettool_tcp.expert.forged", "The keys of this connection do not open this record",
    expert.group.DECRYPTION, expert.severity.WARN)
nettool_tcp.experts = { malformed, forged }

-- What was seen before. Filled once, in order of the capture.

local connections = {} -- addresses -> connection
local records = {} -- what identifies a record -> what was found in it

function nettool_tcp.init()
    connections, records = {}, {}
end

local function addresses(pinfo)
    local source = tostring(pinfo.src) .. " " .. pinfo.src_port
    local target = tostring(pinfo.dst) .. " " .. pinfo.dst_port
    return source, source < target and source .. " " .. target or target .. " " .. source
end

local function new_direction()
    return { count = 0, tries = 0, name = nil, content_bytes = 0, partial = "" }
end

-- The connection of a segment, and the direction in which it travels: "client" or "server". `is_first` says that it
-- begins the connection.
local function connection_of(pinfo, is_first)
    local source, both = addresses(pinfo)
    local connection = connections[both]
    if connection == nil or is_first and not pinfo.visited and connection.has_records then
        connection = { source = source, token = nil, client = new_direction(), server = new_direction() }
        connections[both] = connection
    end
    return connection, connection.source == source and "client" or "server"
end

-- Prefaces

local function show_parameter(branch, name, range)
    if range == nil then
        return nil
    elseif name == "STREAMS" and range:len() == 2 then
        branch:add(f.streams, range)
    elseif name == "NUMBER" and range:len() == 2 then
        branch:add(f.number, range)
        return tostring(range:uint())
    elseif name == "TOKEN" then
        branch:add(f.token, range)
    elseif name == "REASON" and range:len() == 1 then
        branch:add(f.reason, range)
        return shared.preface_refusals[range:uint()]
    end
    return shared.show_parameter(branch, name, range) -- those that both transports have
end

-- A JOIN names its session and its number in the clear; together they name its keys.
local function remember_join(connection, body)
    local at = 1
    local token, number
    while at + 4 <= #body + 1 do
        local id, size = shared.number_at(body, at - 1, 2), shared.number_at(body, at + 1, 2)
        local value = body:sub(at + 4, at + 3 + size)
        if shared.preface_parameters[id] == "TOKEN" then
            token = value
        elseif shared.preface_parameters[id] == "NUMBER" then
            number = value
        end
        at = at + 4 + size
    end
    if token and number then
        connection.client.name = shared.hexadecimal(token .. number .. "\0")
        connection.server.name = shared.hexadecimal(token .. number .. "\1")
    end
end

local function dissect_preface(tvb, pinfo, tree)
    local code = tvb(10, 1):uint()
    local name = shared.prefaces[code] or string.format("unknown preface %d", code)
    tree:add(f.version, tvb(8, 2))
    tree:add(f.type, tvb(10, 1))
    tree:add(f.length, tvb(12, 2))
    local connection = connection_of(pinfo, code == HELLO or code == JOIN)
    if tvb(8, 2):uint() ~= shared.tcp_version then
        return name .. string.format(" of version %d", tvb(8, 2):uint())
    end
    if code == JOIN and not pinfo.visited then
        remember_join(connection, tvb:raw():sub(PREFACE_BYTES + 1))
    end
    local fields = { id = f.parameter_id, value = f.parameter_value }
    local shown = shared.add_parameters(tree, tvb, PREFACE_BYTES, tvb:len(), shared.preface_parameters, fields,
        show_parameter)
    if shown == nil then
        tree:add_proto_expert_info(malformed, "Malformed parameters")
        return name .. " [malformed]"
    end
    return #shown > 0 and name .. " " .. table.concat(shown, ", ") or name
end

-- Frames

local function add_frame(tree, frame)
    local item = tree:add(f.frame_type, frame.type)
    item:set_generated()
    item:add(f.frame_length, shared.uint64(frame.length)):set_generated()
    if frame.type == CONTENT then
        item:add(f.frame_file, frame.file):set_generated()
        item:add(f.frame_offset, shared.uint64(frame.offset)):set_generated()
        return string.format("content of file %.0f at %.0f, %.0f bytes", frame.file, frame.offset, frame.length)
    elseif frame.type == CLOSE then
        local reason = (frame.message or ""):gsub("[^ -~]", "?") -- bytes that may be no UTF-8
        item:add(f.close_code, frame.file):set_generated()
        item:add(f.close_reason, reason):set_generated()
        return "close: " .. reason
    elseif frame.message and #frame.message > 0 then
        return shared.add_message(item, frame.message)
    end
    return "message"
end

local function read_frame(header)
    return {
        type = header:byte(1),
        file = shared.number_at(header, 4, 4),
        offset = shared.number_at(header, 8, 8),
        length = shared.number_at(header, 16, 8),
    }
end

-- The frames that end in a record, or begin there if they carry content. read(start, size) returns plaintext.
local function read_frames(direction, size, read)
    local frames, at = {}, 0
    while at < size do
        local skipped = math.min(direction.content_bytes, size - at)
        direction.content_bytes = direction.content_bytes - skipped
        at = at + skipped
        local missing = (direction.frame and direction.frame.length or FRAME_BYTES) - #direction.partial
        local taken = math.min(missing, size - at)
        if taken > 0 then
            direction.partial = direction.partial .. read(at, taken)
            at = at + taken
        end
        if taken == missing and direction.frame then
            direction.frame.message = direction.partial
            frames[#frames + 1] = direction.frame
            direction.frame, direction.partial = nil, ""
        elseif taken == missing then
            local frame = read_frame(direction.partial)
            direction.partial = ""
            local is_text = frame.type == MESSAGE or frame.type == CLOSE
            if is_text and frame.length > 0 and frame.length <= MAX_FRAME_BYTES then
                direction.frame = frame
            else
                frames[#frames + 1] = frame
                frame.is_unknown = frame.type ~= CONTENT and (not is_text or frame.length > 0)
                -- After an unknown frame, nothing is known about what follows.
                direction.content_bytes = frame.is_unknown and math.huge or frame.length
            end
        end
    end
    return frames
end

-- Records

local function number_bytes(number) -- 8 bytes of a number below 2^32
    local bytes = {}
    for i = 8, 1, -1 do
        bytes[i] = number % 256
        number = (number - bytes[i]) / 256
    end
    return string.char(table.unpack(bytes))
end

local function find_generation(key_log, name, number)
    for _, generation in ipairs(name and key_log:find("tcp", name) or {}) do
        if generation.number == number then
            return generation
        end
    end
    return nil
end

-- The first connection of a session does not say which one it is: its keys are those that fit.
local function find_name(key_log, direction, side, number, header, sealed)
    if direction.name or direction.tries >= MAX_TRIES then
        return
    end
    direction.tries = direction.tries + 1
    key_log:refresh()
    for _, name in ipairs(key_log:names("tcp", side == "client" and "000000" or "000001")) do
        local generation = find_generation(key_log, name, 0)
        if generation and key_log:fits(generation, number, header, sealed) then
            direction.name = name
            return
        end
    end
end

local function open_record(direction, side, raw)
    local record = { state = NO_KEYS, number = direction.count % shared.records_per_key }
    local generation_number = (direction.count - record.number) / shared.records_per_key
    direction.count = direction.count + 1
    local key_log = shared.key_log()
    if key_log == nil then
        return record
    end
    local number, header, sealed = number_bytes(record.number), raw:sub(1, LENGTH_BYTES), raw:sub(LENGTH_BYTES + 1)
    find_name(key_log, direction, side, number, header, sealed)
    local generation = find_generation(key_log, direction.name, generation_number)
    if generation == nil and direction.name and key_log:refresh() then
        generation = find_generation(key_log, direction.name, generation_number)
    end
    if generation == nil then
        return record
    end
    if not key_log:fits(generation, number, header, sealed) then
        record.state = FORGED
        return record
    end
    record.state, record.generation = OPENED, generation
    record.frames = read_frames(direction, #sealed - TAG_BYTES, function(start, size)
        return key_log:open_part(generation, number, sealed, start, size)
    end)
    return record
end

local function add_frames(tree, frames)
    local shown = {}
    for _, frame in ipairs(frames) do
        if frame.is_unknown then
            tree:add_proto_expert_info(malformed, "Unknown frame")
            shown[#shown + 1] = "[malformed]"
        else
            shown[#shown + 1] = add_frame(tree, frame)
        end
    end
    return #shown > 0 and table.concat(shown, ", ") or "more of a frame"
end

local function dissect_record(tvb, pinfo, tree)
    tree:add(f.record_length, tvb(0, LENGTH_BYTES))
    local size = tvb:len() - LENGTH_BYTES - TAG_BYTES
    if size < 0 then
        tree:add_proto_expert_info(malformed, "Record without tag")
        return "record [malformed]"
    end
    local connection, side = connection_of(pinfo, false)
    connection.has_records = true
    local raw = tvb:raw()
    local key = side .. pinfo.src_port .. " " .. pinfo.dst_port .. raw:sub(-TAG_BYTES) -- the tag differs for every record
    if records[key] == nil then
        records[key] = open_record(connection[side], side, raw)
    end
    local record = records[key]
    tree:add(f.record_number, shared.uint64(record.number)):set_generated()
    tree:add(f.protection, record.state):set_generated()
    if size > 0 then
        tree:add(f.sealed, tvb(LENGTH_BYTES, size))
    end
    tree:add(f.tag, tvb(tvb:len() - TAG_BYTES))
    if record.state == FORGED then
        tree:add_proto_expert_info(forged)
        return "record that does not open"
    elseif record.state == NO_KEYS then
        local why = shared.key_log() and "no keys in the key log file" or "give a key log file"
        return string.format("protected record, %d bytes; %s", size, why)
    end
    tree:add(f.aead, record.generation.aead):set_generated()
    tree:add(f.generation, record.generation.number):set_generated()
    return size > 0 and add_frames(tree, record.frames) or "keep-alive"
end

local function dissect_frame(tvb, _, tree)
    tree:add(f.protection, CLEAR):set_generated()
    local frame = read_frame(tvb:raw(0, FRAME_BYTES))
    if frame.type ~= CONTENT then
        frame.message = tvb:raw():sub(FRAME_BYTES + 1)
    end
    return add_frame(tree, frame)
end

-- Streams. The first byte tells apart what follows: that of the magic of a preface, 0 of the length of a record, the type
-- of a frame.

local function pdu_length(tvb, _, offset)
    local first, available = tvb(offset, 1):uint(), tvb:len() - offset
    if first == MAGIC:byte(1) then
        return available < PREFACE_BYTES and 0 or PREFACE_BYTES + tvb(offset + 12, 2):uint()
    elseif first == 0 then
        local length = tvb(offset, LENGTH_BYTES):uint()
        return length <= MAX_RECORD_BYTES and LENGTH_BYTES + length or available
    elseif first >= MESSAGE and first <= CLOSE then
        if available < FRAME_BYTES then
            return 0
        end
        local length = tvb(offset + 16, 8):uint64():tonumber()
        return length <= MAX_FRAME_BYTES and FRAME_BYTES + length or available
    end
    return available
end

local lines = {} -- for the Info column

local function dissect_pdu(tvb, pinfo, tree)
    local branch = tree:add(nettool_tcp, tvb())
    local first = tvb(0, 1):uint()
    local line
    if first == MAGIC:byte(1) and tvb:len() >= PREFACE_BYTES and tvb:raw(0, #MAGIC) == MAGIC then
        line = dissect_preface(tvb, pinfo, branch)
    elseif first == 0 then
        line = dissect_record(tvb, pinfo, branch)
    elseif first >= MESSAGE and first <= CLOSE and tvb:len() >= FRAME_BYTES then
        line = dissect_frame(tvb, pinfo, branch)
    else
        branch:add_proto_expert_info(malformed, "Neither a preface, nor a record, nor a frame")
        line = "[malformed]"
    end
    branch:set_text("nettool over TCP: " .. line)
    lines[#lines + 1] = line
    return tvb:len()
end

function nettool_tcp.dissector(tvb, pinfo, tree)
    lines = {}
    dissect_tcp_pdus(tvb, tree, LENGTH_BYTES, pdu_length, dissect_pdu)
    if #lines > 0 then -- otherwise, nothing ends in this segment
        pinfo.cols.protocol = "NETTOOL"
        pinfo.cols.info = table.concat(lines, "; ")
    end
    return tvb:len()
end

DissectorTable.get("tcp.port"):add_for_decode_as(nettool_tcp)
nettool_tcp:register_heuristic("tcp", function(tvb, pinfo, tree)
    if tvb:len() < #MAGIC or tvb:raw(0, #MAGIC) ~= MAGIC then
        return false
    end
    pinfo.conversation = nettool_tcp
    nettool_tcp.dissector(tvb, pinfo, tree)
    return true
end)
