-- The key log of nettool (toolkit/security/keylog.py), for nettool.lua: finds the keys of a packet and opens it.
--
-- A line is one generation of the keys of one direction; lines of another form are ignored:
--
--     NETTOOL udp|tcp CONNECTION GENERATION AEAD KEY IV
--
-- The nonce of a packet or record is the IV XOR its number. What opens has the right tag; nothing else is shown as plaintext.

local MAX_CIPHERS = 64 -- a cipher with its tables takes up to half a megabyte
local MAX_TEXT_BYTES = 64 * 1024 * 1024 -- plaintext that is kept for the next time a packet is shown
local TAG_BYTES = 16

local bxor = bit32 and bit32.bxor or load("local a, b = ... return a ~ b") -- an operator since Lua 5.3

local KeyLog = {}
KeyLog.__index = KeyLog

-- `ciphers` is what nettool_aead.lua returns.
function KeyLog.new(path, ciphers)
    return setmetatable({
        path = path,
        ciphers = ciphers,
        position = 0, -- what has been read of the file
        problem = nil, -- why the file cannot be read
        connections = {}, -- transport and connection -> list of generations
        known = {}, -- lines that have been read
        active = {}, -- generations with a cipher, oldest first
        texts = {}, -- what -> plaintext
        text_bytes = 0,
    }, KeyLog)
end

local function from_hexadecimal(text)
    return (text:gsub("%x%x", function(pair)
        return string.char(tonumber(pair, 16))
    end))
end

function KeyLog:add_line(line)
    local transport, connection, number, aead, key, iv = line:match(
        "^NETTOOL (%l+) (%x+) (%d+) (%S+) (%x+) (%x+)%s*$")
    if transport == nil or #key ~= 64 or #iv ~= 24 or self.ciphers[aead] == nil or self.known[line] then
        return -- both ends of a session on one host write the same lines
    end
    self.known[line] = true
    local name = transport .. " " .. connection:lower()
    local generations = self.connections[name] or {}
    self.connections[name] = generations
    generations[#generations + 1] = {
        number = tonumber(number),
        aead = aead,
        key = from_hexadecimal(key),
        iv = from_hexadecimal(iv),
    }
end

-- Reads the lines that the file has gained, and returns whether there are any: a capture may be live.
function KeyLog:refresh()
    local before = self.position
    local file, problem = io.open(self.path, "rb")
    if file == nil then
        self.problem = problem
        return false
    end
    self.problem = nil
    file:seek("set", self.position)
    local text = file:read("*a") or ""
    file:close()
    for line in text:gmatch("([^\n]*)\n") do
        self:add_line(line)
        self.position = self.position + #line + 1
    end
    return self.position > before
end

-- Returns the generations of a connection, nil if none is logged. `connection` is hexadecimal, in lower case.
function KeyLog:find(transport, connection)
    return self.connections[transport .. " " .. connection]
end

local function nonce_of(iv, number) -- `number` as 8 bytes
    local bytes = { iv:byte(5, 12) }
    for i = 1, 8 do
        bytes[i] = bxor(bytes[i], number:byte(i))
    end
    return iv:sub(1, 4) .. string.char(table.unpack(bytes))
end

-- Returns the names of all connections of a transport that end with `suffix`, in hexadecimal.
function KeyLog:names(transport, suffix)
    local names = {}
    for name in pairs(self.connections) do
        if name:sub(1, #transport + 1) == transport .. " " and name:sub(-#suffix) == suffix then
            names[#names + 1] = name:sub(#transport + 2)
        end
    end
    return names
end

function KeyLog:cipher_of(generation)
    if generation.cipher == nil then
        generation.cipher = self.ciphers[generation.aead](generation.key)
        self.active[#self.active + 1] = generation
        if #self.active > MAX_CIPHERS then
            table.remove(self.active, 1).cipher = nil
        end
    end
    return generation.cipher
end

-- Whether the keys of a generation have sealed something with this number, associated data and tag.
function KeyLog:fits(generation, number, header, sealed)
    local text, tag = sealed:sub(1, -TAG_BYTES - 1), sealed:sub(-TAG_BYTES)
    return self:cipher_of(generation):tag(nonce_of(generation.iv, number), text, header) == tag
end

-- Returns `size` bytes of plaintext from `start` on, which counts from 0, of something that fits.
function KeyLog:open_part(generation, number, sealed, start, size)
    local skipped = start - start % 64
    local part = sealed:sub(skipped + 1, start + size)
    return self:cipher_of(generation):decrypt(nonce_of(generation.iv, number), part, skipped):sub(start - skipped + 1)
end

-- Returns the generation whose keys have sealed a packet, nil if there is none.
--     phase   the key-phase bit, 0 or 1: that of even or odd generations
--     number  the packet number, as 8 bytes
--     header  the associated data
--     sealed  what follows the header, with the tag
function KeyLog:generation_of(generations, phase, number, header, sealed)
    local last = generations.last -- the neighbours of a packet have the same keys
    for i = 0, #generations do
        local generation = i == 0 and last or generations[i]
        if generation ~= nil and generation.number % 2 == phase and (i == 0 or generation ~= last) then
            if self:fits(generation, number, header, sealed) then
                generations.last = generation
                return generation
            end
        end
    end
    return nil
end

-- Returns the plaintext of a packet that `generation_of` has returned a generation for. `what` identifies the packet.
function KeyLog:open(what, generation, number, sealed)
    local text = self.texts[what]
    if text == nil then
        text = self:open_part(generation, number, sealed, 0, #sealed - TAG_BYTES)
        if self.text_bytes + #text > MAX_TEXT_BYTES then
            self.texts, self.text_bytes = {}, 0
        end
        self.texts[what] = text
        self.text_bytes = self.text_bytes + #text
    end
    return text
end

return KeyLog
