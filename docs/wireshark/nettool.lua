-- Wireshark dissector for nettool's reliable protocol on UDP (docs/protocol.md).
--
-- Install: copy it to the folder that Help > About > Folders calls "Personal Lua Plugins", or load it once with
--     wireshark -X lua_script:nettool.lua capture.pcapng
--
-- A conversation is recognised by its handshake, on any port; on port 9000 also from the middle on. Elsewhere, and
-- without the handshake in the capture, say Analyze > Decode As > NETTOOL.
--
-- One UDP payload may hold several packets: what Linux captures is the super-packet before it is cut up
-- (UDP_SEGMENT) or after it was joined (UDP_GRO). Such a payload is cut where the next header is found.

local nettool = Proto("nettool", "nettool reliable UDP")

-- generated from toolkit/rudp/wire.py by docs/generate.py: layouts
local VERSION = 0x4e540001
local LAYOUTS = {
    [0x01] = { name = "INITIAL", fields = {
        { "type", 1, "packet type" },
        { "flags", 1, "bit 0: acknowledge without delay" },
        { "connection_id", 8, "the client's id, chosen at random" },
        { "version", 4, "protocol version, 0x4E54 and a number" },
        { "datagram_bytes", 2, "largest datagram that the sender can take" },
        { "token_bytes", 2, "length of the address-validation token that follows" },
        { "security_bytes", 2, "length of the security field behind it; the rest is padding" },
    } },
    [0x02] = { name = "RETRY", fields = {
        { "type", 1, "packet type" },
        { "flags", 1, "bit 0: acknowledge without delay" },
        { "connection_id", 8, "the receiving side's id for the connection" },
        { "version", 4, "protocol version, 0x4E54 and a number" },
        { "token_bytes", 2, "length of the token to come back with" },
    } },
    [0x03] = { name = "ACCEPT", fields = {
        { "type", 1, "packet type" },
        { "flags", 1, "bit 0: acknowledge without delay" },
        { "connection_id", 8, "the receiving side's id for the connection" },
        { "version", 4, "protocol version, 0x4E54 and a number" },
        { "server_connection_id", 8, "the server's id, chosen at random" },
        { "datagram_bytes", 2, "largest datagram that the sender can take" },
        { "data_window", 8, "first position of the data space that may not be sent yet" },
        { "security_bytes", 2, "length of the security field that follows" },
    } },
    [0x04] = { name = "VERSION", fields = {
        { "type", 1, "packet type" },
        { "flags", 1, "bit 0: acknowledge without delay" },
        { "connection_id", 8, "the receiving side's id for the connection" },
        { "version", 4, "a version that the server speaks" },
    } },
    [0x10] = { name = "DATA", fields = {
        { "type", 1, "packet type" },
        { "flags", 1, "bit 0: acknowledge without delay" },
        { "connection_id", 8, "the receiving side's id for the connection" },
        { "packet_number", 8, "counts up from 0 in each direction, never used twice" },
        { "position", 8, "where the payload belongs in the byte space of data or of messages" },
    } },
    [0x11] = { name = "MESSAGE", fields = {
        { "type", 1, "packet type" },
        { "flags", 1, "bit 0: acknowledge without delay" },
        { "connection_id", 8, "the receiving side's id for the connection" },
        { "packet_number", 8, "counts up from 0 in each direction, never used twice" },
        { "position", 8, "where the payload belongs in the byte space of data or of messages" },
    } },
    [0x12] = { name = "ACK", fields = {
        { "type", 1, "packet type" },
        { "flags", 1, "bit 0: acknowledge without delay" },
        { "connection_id", 8, "the receiving side's id for the connection" },
        { "packet_number", 8, "counts up from 0 in each direction, never used twice" },
        { "largest", 8, "largest packet number received" },
        { "delay_us", 4, "time from the arrival of that packet to this acknowledgement, microseconds" },
        { "data_window", 8, "first position of the data space that may not be sent yet" },
        { "message_window", 8, "the same for the message space" },
        { "ect_count", 4, "packets received with ECT(0) or ECT(1), modulo 2^32" },
        { "ce_count", 4, "packets received with Congestion Experienced, modulo 2^32" },
        { "drop_count", 4, "datagrams that the receiving host dropped at its socket, modulo 2^32" },
        { "range_count", 2, "ranges that follow" },
    } },
    [0x13] = { name = "PING", fields = {
        { "type", 1, "packet type" },
        { "flags", 1, "bit 0: acknowledge without delay" },
        { "connection_id", 8, "the receiving side's id for the connection" },
        { "packet_number", 8, "counts up from 0 in each direction, never used twice" },
        { "least_unacked", 8, "packets below are settled: they need no more acknowledging" },
        { "ack_every_bytes", 4, "how many bytes may arrive before an acknowledgement" },
        { "max_ack_delay_us", 4, "how long an acknowledgement may wait, microseconds" },
    } },
    [0x14] = { name = "PROBE", fields = {
        { "type", 1, "packet type" },
        { "flags", 1, "bit 0: acknowledge without delay" },
        { "connection_id", 8, "the receiving side's id for the connection" },
        { "packet_number", 8, "counts up from 0 in each direction, never used twice" },
    } },
    [0x15] = { name = "PATH_CHALLENGE", fields = {
        { "type", 1, "packet type" },
        { "flags", 1, "bit 0: acknowledge without delay" },
        { "connection_id", 8, "the receiving side's id for the connection" },
        { "packet_number", 8, "counts up from 0 in each direction, never used twice" },
        { "challenge", 8, "an unguessable value, echoed by the response" },
    } },
    [0x16] = { name = "PATH_RESPONSE", fields = {
        { "type", 1, "packet type" },
        { "flags", 1, "bit 0: acknowledge without delay" },
        { "connection_id", 8, "the receiving side's id for the connection" },
        { "packet_number", 8, "counts up from 0 in each direction, never used twice" },
        { "challenge", 8, "an unguessable value, echoed by the response" },
    } },
    [0x17] = { name = "CLOSE", fields = {
        { "type", 1, "packet type" },
        { "flags", 1, "bit 0: acknowledge without delay" },
        { "connection_id", 8, "the receiving side's id for the connection" },
        { "packet_number", 8, "counts up from 0 in each direction, never used twice" },
        { "code", 2, "0: all is well; otherwise the exit code of the side that closes" },
        { "reason_bytes", 2, "length of a reason in UTF-8 that follows" },
    } },
}
local ACK_RANGE = {
    { "gap", 4, "packets not received between the range before and this one (0 for the first)" },
    { "length", 4, "packets received in a row, counting down" },
}
local FLAGS = {
    { "ack_now", 0x01 },
}
-- end of what is generated

-- Fields: one for each name in the layouts, and some that are worked out.

local HEXADECIMAL = { version = true, connection_id = true, server_connection_id = true, challenge = true, flags = true }
local INTEGER = { [1] = ProtoField.uint8, [2] = ProtoField.uint16, [4] = ProtoField.uint32, [8] = ProtoField.uint64 }

local f = {}
local type_names = {}
for code, layout in pairs(LAYOUTS) do
    type_names[code] = layout.name
end

local function define(fields)
    for _, field in ipairs(fields) do
        local name, size, meaning = field[1], field[2], field[3]
        if f[name] == nil then
            local shown = HEXADECIMAL[name] and base.HEX or base.DEC
            local values = nil
            if name == "type" then
                shown, values = base.HEX, type_names
            end
            f[name] = INTEGER[size]("nettool." .. name, name, shown, values, nil, meaning)
        end
    end
end
for code = 0, 255 do
    if LAYOUTS[code] ~= nil then
        define(LAYOUTS[code].fields)
    end
end
define(ACK_RANGE)
for _, flag in ipairs(FLAGS) do
    f["flags." .. flag[1]] = ProtoField.bool("nettool.flags." .. flag[1], flag[1], 8, nil, flag[2])
end

f.token = ProtoField.bytes("nettool.token", "token")
f.security = ProtoField.bytes("nettool.security", "security field")
f.padding_bytes = ProtoField.uint32("nettool.padding_bytes", "padding bytes")
f.payload = ProtoField.bytes("nettool.payload", "payload")
f.payload_bytes = ProtoField.uint32("nettool.payload_bytes", "payload bytes")
f.reason = ProtoField.string("nettool.reason", "reason")
f.range = ProtoField.none("nettool.range", "range")
f.range_first = ProtoField.uint64("nettool.range.first", "lowest packet number of the range")
f.range_last = ProtoField.uint64("nettool.range.last", "highest packet number of the range")
f.acked_packets = ProtoField.uint64("nettool.acked_packets", "packets that the ranges cover")
f.retransmission = ProtoField.bool("nettool.retransmission", "retransmission")
f.segment = ProtoField.uint32("nettool.segment", "place in the super-packet")
f.segments = ProtoField.uint32("nettool.segments", "packets in the super-packet")
nettool.fields = f

local e = {
    malformed = ProtoExpert.new("nettool.malformed", "Malformed packet", expert.group.MALFORMED, expert.severity.ERROR),
    version = ProtoExpert.new("nettool.version.unknown", "Another version of the protocol", expert.group.PROTOCOL,
        expert.severity.WARN),
    retransmission = ProtoExpert.new("nettool.expert.retransmission", "Retransmission", expert.group.SEQUENCE,
        expert.severity.NOTE),
    out_of_order = ProtoExpert.new("nettool.expert.out_of_order", "Out of order: a later packet was seen before",
        expert.group.SEQUENCE, expert.severity.NOTE),
    duplicate = ProtoExpert.new("nettool.expert.duplicate", "Duplicate: this packet number was seen before",
        expert.group.SEQUENCE, expert.severity.NOTE),
    drops = ProtoExpert.new("nettool.expert.socket_drops", "The receiving host drops datagrams at its socket",
        expert.group.SEQUENCE, expert.severity.WARN),
    closed = ProtoExpert.new("nettool.expert.closed", "Closed with an error", expert.group.RESPONSE_CODE,
        expert.severity.WARN),
}
local experts = {}
for _, info in pairs(e) do
    experts[#experts + 1] = info
end
nettool.experts = experts

-- What was seen before, by connection id (it tells the direction as well); found out once, in order of the capture.

local DATA, MESSAGE, ACK = 0x10, 0x11, 0x12
local connections = {} -- connection id -> largest packet number, ends of the byte spaces, drop count
local verdicts = {} -- frame number .. offset -> what the first pass has found

function nettool.init()
    connections = {}
    verdicts = {}
end

local function look_back(packet)
    local connection = connections[packet.connection_id]
    if connection == nil then
        connection = { largest = -1, ends = { [DATA] = 0, [MESSAGE] = 0 }, drops = 0, seen = {} }
        connections[packet.connection_id] = connection
    end
    local verdict = {}
    if connection.seen[packet.number] then
        verdict.duplicate = true
    elseif packet.number < connection.largest then
        verdict.out_of_order = true
    elseif packet.position ~= nil and packet.position < connection.ends[packet.code] then
        -- Sent later than what reached farther: these bytes go out again, under a new packet number.
        verdict.retransmission = true
    end
    connection.seen[packet.number] = true
    connection.largest = math.max(connection.largest, packet.number)
    if packet.position ~= nil then
        local reaches = packet.position + packet.payload_bytes
        connection.ends[packet.code] = math.max(connection.ends[packet.code], reaches)
    end
    if packet.drops ~= nil and packet.drops > connection.drops then
        connection.drops = packet.drops
        verdict.drops = true
    end
    return verdict
end

-- Dissection

local function add_fields(tree, tvb, offset, fields)
    local values = {}
    for _, field in ipairs(fields) do
        local name, size = field[1], field[2]
        local range = tvb(offset, size)
        local item = tree:add(f[name], range)
        if name == "flags" then
            for _, flag in ipairs(FLAGS) do
                item:add(f["flags." .. flag[1]], range)
            end
        end
        values[name] = size == 8 and range:uint64():tonumber() or range:uint()
        offset = offset + size
    end
    return values, offset
end

local function malformed(tree, why)
    tree:add_proto_expert_info(e.malformed, why)
    return "[malformed]"
end

local function take(tree, tvb, offset, length, field)
    if offset + length > tvb:len() then
        malformed(tree, "a length reaches beyond the packet")
        return nil
    end
    if length > 0 then
        tree:add(field, tvb(offset, length))
    end
    return offset + length
end

local function add_padding(tree, tvb, offset)
    if offset < tvb:len() then
        tree:add(f.padding_bytes, tvb(offset), tvb:len() - offset)
    end
end

local function add_ranges(tree, tvb, offset, values)
    local above = values.largest + 1
    local covered, shown = 0, {}
    if values.range_count == 0 then
        return malformed(tree, "an acknowledgement of nothing")
    end
    for i = 1, values.range_count do
        if offset + 8 > tvb:len() then
            return malformed(tree, "the ranges are not whole")
        end
        local branch = tree:add(f.range, tvb(offset, 8))
        local range = add_fields(branch, tvb, offset, ACK_RANGE)
        local last = above - range.gap - 1
        local first = last - range.length + 1
        if range.length == 0 or first < 0 or (range.gap == 0) ~= (i == 1) then
            return malformed(branch, "a range that cannot be")
        end
        branch:add(f.range_first, tvb(offset, 8), UInt64.new(first % 2 ^ 32, math.floor(first / 2 ^ 32)))
        branch:add(f.range_last, tvb(offset, 8), UInt64.new(last % 2 ^ 32, math.floor(last / 2 ^ 32)))
        branch:set_text(string.format("Range: %.0f to %.0f", first, last))
        if #shown < 4 then
            shown[#shown + 1] = first == last and string.format("%.0f", last) or string.format("%.0f-%.0f", first, last)
        end
        covered = covered + range.length
        above = first
        offset = offset + 8
    end
    tree:add(f.acked_packets, tvb(offset - 8 * values.range_count, 8 * values.range_count), UInt64.new(covered % 2 ^ 32,
        math.floor(covered / 2 ^ 32))):set_generated()
    local more = values.range_count > #shown and " ..." or ""
    return "acknowledges " .. table.concat(shown, ", ") .. more
end

-- What follows the fixed fields of each type; returns a line for the Info column.
local rest = {
    INITIAL = function(tree, tvb, offset, values)
        if values.version ~= VERSION then
            tree:add_proto_expert_info(e.version)
            return string.format("version 0x%08x", values.version)
        end
        local after = take(tree, tvb, offset, values.token_bytes, f.token)
        after = after and take(tree, tvb, after, values.security_bytes, f.security)
        if after then
            add_padding(tree, tvb, after)
        end
        return string.format("datagrams of %d%s", values.datagram_bytes, values.token_bytes > 0 and ", with a token" or "")
    end,
    RETRY = function(tree, tvb, offset, values)
        take(tree, tvb, offset, values.token_bytes, f.token)
        return "prove your address"
    end,
    ACCEPT = function(tree, tvb, offset, values)
        take(tree, tvb, offset, values.security_bytes, f.security)
        return string.format("datagrams of %d, window %.0f", values.datagram_bytes, values.data_window)
    end,
    VERSION = function(_, _, _, values)
        return string.format("speaks 0x%08x", values.version)
    end,
    ACK = add_ranges,
    PING = function(_, _, _, values)
        return string.format("acknowledge every %d bytes or %d us", values.ack_every_bytes, values.max_ack_delay_us)
    end,
    PROBE = function(tree, tvb, offset)
        add_padding(tree, tvb, offset)
        return string.format("of %d bytes", tvb:len())
    end,
    CLOSE = function(tree, tvb, offset, values)
        if take(tree, tvb, offset, values.reason_bytes, f.reason) == nil then
            return "[malformed]"
        end
        local reason = values.reason_bytes > 0 and tvb(offset, values.reason_bytes):string() or ""
        if values.code ~= 0 then
            tree:add_proto_expert_info(e.closed, string.format("Closed with code %d: %s", values.code, reason))
        end
        return string.format("code %d %s", values.code, reason)
    end,
}

local function add_payload(tree, tvb, offset, values)
    local length = tvb:len() - offset
    if length == 0 then
        return malformed(tree, "no payload")
    end
    tree:add(f.payload_bytes, tvb(offset), length):set_generated()
    tree:add(f.payload, tvb(offset))
    return string.format("position %.0f, %d bytes", values.position, length)
end
rest.DATA = add_payload
rest.MESSAGE = add_payload

local function show_challenge(_, tvb, offset)
    return "value " .. tvb(offset - 8, 8):bytes():tohex():lower()
end
rest.PATH_CHALLENGE = show_challenge
rest.PATH_RESPONSE = show_challenge

local function layout_bytes(layout)
    local size = 0
    for _, field in ipairs(layout.fields) do
        size = size + field[2]
    end
    return size
end

local function dissect_packet(tvb, pinfo, tree, key)
    local code = tvb(0, 1):uint()
    local layout = LAYOUTS[code]
    if layout == nil then
        return malformed(tree, string.format("type 0x%02x, which there is not", code))
    end
    local size = layout_bytes(layout)
    if tvb:len() < size then
        return layout.name .. " " .. malformed(tree, "too short for its type")
    end
    local values, offset = add_fields(tree, tvb, 0, layout.fields)
    local finish = rest[layout.name]
    local detail = finish and finish(tree, tvb, offset, values) or ""
    if values.packet_number == nil or detail == "[malformed]" then
        return string.format("%s %s", layout.name, detail)
    end
    if not pinfo.visited then
        verdicts[key] = look_back({
            code = code,
            connection_id = tvb(2, 8):bytes():tohex(),
            number = values.packet_number,
            position = values.position,
            payload_bytes = tvb:len() - size,
            drops = values.drop_count,
        })
    end
    local verdict = verdicts[key] or {}
    local mark = ""
    if verdict.retransmission then
        tree:add(f.retransmission, true):set_generated()
        tree:add_proto_expert_info(e.retransmission)
        mark = " [retransmission]"
    elseif verdict.out_of_order then
        tree:add_proto_expert_info(e.out_of_order)
        mark = " [out of order]"
    elseif verdict.duplicate then
        tree:add_proto_expert_info(e.duplicate)
        mark = " [duplicate]"
    end
    if verdict.drops then
        tree:add_proto_expert_info(e.drops)
    end
    return string.format("%s %.0f, %s%s", layout.name, values.packet_number, detail, mark)
end

-- The length of the packets in a payload: all are equal but the last, carry the same id and count up by one.
local function segment_bytes(tvb)
    local code = tvb(0, 1):uint()
    if tvb:len() < 2 * 26 or (code ~= DATA and code ~= MESSAGE) then
        return tvb:len()
    end
    local raw = tvb:raw()
    local id = raw:sub(3, 10)
    local number = tvb(10, 8):uint64()
    local at = raw:find(id, 11, true)
    while at ~= nil do
        local start = at - 3 -- counted from 0, where the packet of this id would begin
        if start >= 27 and raw:byte(start + 1) == code and start + 18 <= tvb:len() then
            if tvb(start + 10, 8):uint64() == number + 1 then
                return start
            end
        end
        at = raw:find(id, at + 1, true)
    end
    return tvb:len()
end

function nettool.dissector(tvb, pinfo, tree)
    if tvb:len() < 10 then
        return 0
    end
    pinfo.cols.protocol = "NETTOOL"
    local segment = segment_bytes(tvb)
    local count = math.ceil(tvb:len() / segment)
    local first, last
    for i = 1, count do
        local offset = (i - 1) * segment
        local part = tvb(offset, math.min(segment, tvb:len() - offset)):tvb()
        local branch = tree:add(nettool, part())
        local line
        if part:len() < 10 then
            line = malformed(branch, "too short for any packet")
        else
            line = dissect_packet(part, pinfo, branch, pinfo.number .. "/" .. offset)
        end
        branch:set_text("nettool: " .. line)
        if count > 1 then
            branch:add(f.segment, i):set_generated()
        end
        first, last = first or line, line
    end
    if count > 1 then
        tree:add(f.segments, count):set_generated()
        pinfo.cols.info = string.format("%d packets: %s ... %s", count, first, last)
    else
        pinfo.cols.info = first
    end
    return tvb:len()
end

-- Sure signs only, for any port: the version of a handshake, or an ACK or PING whose length fits to the byte.
local function recognise(tvb, pinfo, tree)
    if tvb:len() < 14 or tvb(1, 1):uint() > 1 then
        return false
    end
    local layout = LAYOUTS[tvb(0, 1):uint()]
    if layout == nil or tvb:len() < layout_bytes(layout) then
        return false
    end
    local name, sure = layout.name, false
    if name == "INITIAL" or name == "RETRY" or name == "ACCEPT" or name == "VERSION" then
        sure = tvb(10, 2):uint() == math.floor(VERSION / 65536) and (name ~= "INITIAL" or tvb:len() >= 1200)
    elseif name == "ACK" then
        local ranges = tvb(layout_bytes(layout) - 2, 2):uint()
        sure = ranges > 0 and tvb:len() == layout_bytes(layout) + 8 * ranges and tvb(10, 2):uint() == 0
    elseif name == "PING" then
        sure = tvb:len() == layout_bytes(layout) and tvb(10, 2):uint() == 0
    end
    if not sure then
        return false
    end
    pinfo.conversation = nettool
    nettool.dissector(tvb, pinfo, tree)
    return true
end

nettool:register_heuristic("udp", recognise)
DissectorTable.get("udp.port"):add(9000, nettool)
