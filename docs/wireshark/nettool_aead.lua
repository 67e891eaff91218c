-- AES-256-GCM and ChaCha20-Poly1305 in plain Lua, for nettool.lua: opens sealed packets with logged keys.
--
-- Wireshark's Lua has no ciphers. This file needs Lua 5.2 (Wireshark up to 4.2) or later, and nothing else. It is no
-- library for other purposes: it takes no care of timing, and it does not seal.
--
-- Read: FIPS 197 (AES), NIST SP 800-38D (GCM), RFC 8439 (ChaCha20 and Poly1305).

local bit = bit32
if bit == nil then -- Lua 5.3 and later have operators instead, which are syntax errors in Lua 5.2
    bit = load([[
        local function bxor(a, b, ...)
            local x = (a ~ b) & 0xffffffff
            if ... then return bxor(x, ...) end
            return x
        end
        local function lrotate(a, n)
            a = a & 0xffffffff
            return (a << n | a >> (32 - n)) & 0xffffffff
        end
        return { bxor = bxor, lrotate = lrotate, band = function(a, b) return a & b end }
    ]])()
end
local bxor, lrotate, band = bit.bxor, bit.lrotate, bit.band
local byte, char, rep, sub = string.byte, string.char, string.rep, string.sub
local floor = math.floor
local unpack = table.unpack

-- Words

local function word(s, i) -- four bytes from position i, most significant first
    local a, b, c, d = byte(s, i, i + 3)
    return ((a * 256 + b) * 256 + c) * 256 + d
end

local function little_word(s, i)
    local a, b, c, d = byte(s, i, i + 3)
    return ((d * 256 + c) * 256 + b) * 256 + a
end

local function word_bytes(x)
    local d = x % 256
    x = (x - d) / 256
    local c = x % 256
    x = (x - c) / 256
    local b = x % 256
    return (x - b) / 256, b, c, d
end

local function padded(s, n) -- with zeros to a multiple of n bytes
    return s .. rep("\0", -#s % n)
end

-- Returns `text` XOR the bytes of `stream`, a list of words whose most significant byte comes first.
local function xor_words(text, stream)
    local size = #text
    text = padded(text, 4)
    local parts, n = {}, 0
    for i = 1, #text / 4 do
        n = n + 1
        parts[n] = char(word_bytes(bxor(word(text, 4 * i - 3), stream[i])))
    end
    return sub(table.concat(parts), 1, size)
end

-- AES-256

local S = {} -- the S-box
local T0, T1, T2, T3 = {}, {}, {}, {} -- SubBytes, ShiftRows and MixColumns of one byte, in each row of a column

local function double(x) -- multiplication by x in GF(2^8)
    x = 2 * x
    return x > 255 and bxor(x, 0x11b) or x
end

do
    local exponents, logarithms, x = {}, {}, 1
    for i = 0, 254 do
        exponents[i], logarithms[x] = x, i
        x = bxor(x, double(x)) -- 3 generates the field
    end
    for i = 0, 255 do
        local inverse = i > 0 and exponents[(255 - logarithms[i]) % 255] or 0
        local rotated = inverse * 257 -- twice the byte, so that a shift rotates it
        local s = 0x63
        for shift = 4, 8 do
            s = bxor(s, floor(rotated / 2 ^ shift) % 256)
        end
        S[i] = s
        local s2 = double(s)
        T0[i] = ((s2 * 256 + s) * 256 + s) * 256 + bxor(s2, s)
        T1[i] = lrotate(T0[i], 24)
        T2[i] = lrotate(T0[i], 16)
        T3[i] = lrotate(T0[i], 8)
    end
end

local function substitute(x)
    local a, b, c, d = word_bytes(x)
    return ((S[a] * 256 + S[b]) * 256 + S[c]) * 256 + S[d]
end

local ROUNDS = 14

local function expand_key(key)
    local w, constant = {}, 1
    for i = 0, 7 do
        w[i] = word(key, 4 * i + 1)
    end
    for i = 8, 4 * ROUNDS + 3 do
        local x = w[i - 1]
        if i % 8 == 0 then
            x = bxor(substitute(lrotate(x, 8)), constant * 16777216)
            constant = double(constant)
        elseif i % 8 == 4 then
            x = substitute(x)
        end
        w[i] = bxor(w[i - 8], x)
    end
    return w
end

local function encrypt_block(w, a, b, c, d) -- four words
    a, b, c, d = bxor(a, w[0]), bxor(b, w[1]), bxor(c, w[2]), bxor(d, w[3])
    for i = 4, 4 * ROUNDS - 4, 4 do
        -- The bytes of each word, from the least significant one (3) to the most significant one (0). Arithmetic costs
        -- less here than calls of bit operations.
        local a3 = a % 256; a = (a - a3) / 256
        local a2 = a % 256; a = (a - a2) / 256
        local a1 = a % 256
        local b3 = b % 256; b = (b - b3) / 256
        local b2 = b % 256; b = (b - b2) / 256
        local b1 = b % 256
        local c3 = c % 256; c = (c - c3) / 256
        local c2 = c % 256; c = (c - c2) / 256
        local c1 = c % 256
        local d3 = d % 256; d = (d - d3) / 256
        local d2 = d % 256; d = (d - d2) / 256
        local d1 = d % 256
        local a0, b0, c0, d0 = (a - a1) / 256, (b - b1) / 256, (c - c1) / 256, (d - d1) / 256
        a = bxor(T0[a0], T1[b1], T2[c2], T3[d3], w[i])
        b = bxor(T0[b0], T1[c1], T2[d2], T3[a3], w[i + 1])
        c = bxor(T0[c0], T1[d1], T2[a2], T3[b3], w[i + 2])
        d = bxor(T0[d0], T1[a1], T2[b2], T3[c3], w[i + 3])
    end
    local a0, a1, a2, a3 = word_bytes(a)
    local b0, b1, b2, b3 = word_bytes(b)
    local c0, c1, c2, c3 = word_bytes(c)
    local d0, d1, d2, d3 = word_bytes(d)
    local i = 4 * ROUNDS
    return bxor(((S[a0] * 256 + S[b1]) * 256 + S[c2]) * 256 + S[d3], w[i]),
        bxor(((S[b0] * 256 + S[c1]) * 256 + S[d2]) * 256 + S[a3], w[i + 1]),
        bxor(((S[c0] * 256 + S[d1]) * 256 + S[a2]) * 256 + S[b3], w[i + 2]),
        bxor(((S[d0] * 256 + S[a1]) * 256 + S[b2]) * 256 + S[c3], w[i + 3])
end

-- GHASH: multiplication by H in GF(2^128), whose elements have the coefficient of x^0 in the most significant bit.

-- Returns 16 tables. The table of position p holds the product of H and each byte in that position, as four words.
local function multiplication_tables(h0, h1, h2, h3)
    local tables = {}
    for position = 1, 16 do
        local t0, t1, t2, t3 = { [0] = 0 }, { [0] = 0 }, { [0] = 0 }, { [0] = 0 }
        for shift = 7, 0, -1 do
            local bit_value = lrotate(1, shift)
            t0[bit_value], t1[bit_value], t2[bit_value], t3[bit_value] = h0, h1, h2, h3
            -- The product with x: shift right by one, and reduce by x^128 = x^7 + x^2 + x + 1.
            local c0, c1, c2, c3 = h0 % 2, h1 % 2, h2 % 2, h3 % 2
            h3 = (h3 - c3) / 2 + c2 * 2147483648
            h2 = (h2 - c2) / 2 + c1 * 2147483648
            h1 = (h1 - c1) / 2 + c0 * 2147483648
            h0 = (h0 - c0) / 2
            if c3 == 1 then
                h0 = bxor(h0, 0xe1000000)
            end
        end
        for i = 1, 255 do
            if t0[i] == nil then
                local low = band(i, -i % 256)
                local rest = i - low
                t0[i], t1[i] = bxor(t0[low], t0[rest]), bxor(t1[low], t1[rest])
                t2[i], t3[i] = bxor(t2[low], t2[rest]), bxor(t3[low], t3[rest])
            end
        end
        tables[position] = { t0, t1, t2, t3 }
    end
    return tables
end

-- One word of a product, from the 16 bytes of a factor.
local function product_word(tables, i)
    local t = {}
    for position = 1, 16 do
        t[position] = tables[position][i]
    end
    local p1, p2, p3, p4, p5, p6, p7, p8 = t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8]
    local p9, p10, p11, p12, p13, p14, p15, p16 = t[9], t[10], t[11], t[12], t[13], t[14], t[15], t[16]
    return function(a, b, c, d, e, f, g, h, i1, j, k, l, m, n, o, p)
        return bxor(p1[a], p2[b], p3[c], p4[d], p5[e], p6[f], p7[g], p8[h],
            p9[i1], p10[j], p11[k], p12[l], p13[m], p14[n], p15[o], p16[p])
    end
end

local function ghash(products, s) -- s has a multiple of 16 bytes; returns four words
    local w0, w1, w2, w3 = products[1], products[2], products[3], products[4]
    local y0, y1, y2, y3 = 0, 0, 0, 0
    for at = 1, #s, 16 do
        local s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15, s16 = byte(s, at, at + 15)
        local a, b, c, d = word_bytes(bxor(y0, ((s1 * 256 + s2) * 256 + s3) * 256 + s4))
        local e, f, g, h = word_bytes(bxor(y1, ((s5 * 256 + s6) * 256 + s7) * 256 + s8))
        local i, j, k, l = word_bytes(bxor(y2, ((s9 * 256 + s10) * 256 + s11) * 256 + s12))
        local m, n, o, p = word_bytes(bxor(y3, ((s13 * 256 + s14) * 256 + s15) * 256 + s16))
        y0 = w0(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
        y1 = w1(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
        y2 = w2(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
        y3 = w3(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
    end
    return y0, y1, y2, y3
end

local AES = {}
AES.__index = AES

local function new_aes(key)
    local w = expand_key(key)
    local tables = multiplication_tables(encrypt_block(w, 0, 0, 0, 0))
    local products = {}
    for i = 1, 4 do
        products[i] = product_word(tables, i)
    end
    return setmetatable({ w = w, products = products }, AES)
end

function AES:decrypt(nonce, text, skipped_bytes)
    local a, b, c = word(nonce, 1), word(nonce, 5), word(nonce, 9)
    local stream, w, skipped = {}, self.w, (skipped_bytes or 0) / 16
    for block = 1, floor((#text + 15) / 16) do
        local i = 4 * block - 3
        stream[i], stream[i + 1], stream[i + 2], stream[i + 3] = encrypt_block(w, a, b, c, skipped + block + 1)
    end
    return xor_words(text, stream)
end

function AES:tag(nonce, text, associated_data)
    local size = #associated_data
    local lengths = rep("\0", 4) .. char(word_bytes(8 * size)) .. rep("\0", 4) .. char(word_bytes(8 * #text))
    local y0, y1, y2, y3 = ghash(self.products, padded(associated_data, 16) .. padded(text, 16) .. lengths)
    local e0, e1, e2, e3 = encrypt_block(self.w, word(nonce, 1), word(nonce, 5), word(nonce, 9), 1)
    return char(word_bytes(bxor(y0, e0))) .. char(word_bytes(bxor(y1, e1)))
        .. char(word_bytes(bxor(y2, e2))) .. char(word_bytes(bxor(y3, e3)))
end

-- ChaCha20

-- Returns 16 words of key stream. `key` has 8 words, `nonce` 3.
local function chacha_block(key, counter, nonce)
    local k0, k1, k2, k3, k4, k5, k6, k7 = key[1], key[2], key[3], key[4], key[5], key[6], key[7], key[8]
    local n0, n1, n2 = nonce[1], nonce[2], nonce[3]
    local a0, a1, a2, a3 = 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574 -- "expand 32-byte k"
    local b0, b1, b2, b3, c0, c1, c2, c3 = k0, k1, k2, k3, k4, k5, k6, k7
    local d0, d1, d2, d3 = counter, n0, n1, n2
    for _ = 1, 10 do
        -- Sums may exceed 32 bits: the bit operations and the last line reduce them. They stay below 2^53.
        a0 = a0 + b0; d0 = lrotate(bxor(d0, a0), 16); c0 = c0 + d0; b0 = lrotate(bxor(b0, c0), 12)
        a1 = a1 + b1; d1 = lrotate(bxor(d1, a1), 16); c1 = c1 + d1; b1 = lrotate(bxor(b1, c1), 12)
        a2 = a2 + b2; d2 = lrotate(bxor(d2, a2), 16); c2 = c2 + d2; b2 = lrotate(bxor(b2, c2), 12)
        a3 = a3 + b3; d3 = lrotate(bxor(d3, a3), 16); c3 = c3 + d3; b3 = lrotate(bxor(b3, c3), 12)
        a0 = a0 + b0; d0 = lrotate(bxor(d0, a0), 8); c0 = c0 + d0; b0 = lrotate(bxor(b0, c0), 7)
        a1 = a1 + b1; d1 = lrotate(bxor(d1, a1), 8); c1 = c1 + d1; b1 = lrotate(bxor(b1, c1), 7)
        a2 = a2 + b2; d2 = lrotate(bxor(d2, a2), 8); c2 = c2 + d2; b2 = lrotate(bxor(b2, c2), 7)
        a3 = a3 + b3; d3 = lrotate(bxor(d3, a3), 8); c3 = c3 + d3; b3 = lrotate(bxor(b3, c3), 7)
        a0 = a0 + b1; d3 = lrotate(bxor(d3, a0), 16); c2 = c2 + d3; b1 = lrotate(bxor(b1, c2), 12)
        a1 = a1 + b2; d0 = lrotate(bxor(d0, a1), 16); c3 = c3 + d0; b2 = lrotate(bxor(b2, c3), 12)
        a2 = a2 + b3; d1 = lrotate(bxor(d1, a2), 16); c0 = c0 + d1; b3 = lrotate(bxor(b3, c0), 12)
        a3 = a3 + b0; d2 = lrotate(bxor(d2, a3), 16); c1 = c1 + d2; b0 = lrotate(bxor(b0, c1), 12)
        a0 = a0 + b1; d3 = lrotate(bxor(d3, a0), 8); c2 = c2 + d3; b1 = lrotate(bxor(b1, c2), 7)
        a1 = a1 + b2; d0 = lrotate(bxor(d0, a1), 8); c3 = c3 + d0; b2 = lrotate(bxor(b2, c3), 7)
        a2 = a2 + b3; d1 = lrotate(bxor(d1, a2), 8); c0 = c0 + d1; b3 = lrotate(bxor(b3, c0), 7)
        a3 = a3 + b0; d2 = lrotate(bxor(d2, a3), 8); c1 = c1 + d2; b0 = lrotate(bxor(b0, c1), 7)
    end
    local m = 4294967296
    return (a0 + 0x61707865) % m, (a1 + 0x3320646e) % m, (a2 + 0x79622d32) % m, (a3 + 0x6b206574) % m,
        (b0 + k0) % m, (b1 + k1) % m, (b2 + k2) % m, (b3 + k3) % m,
        (c0 + k4) % m, (c1 + k5) % m, (c2 + k6) % m, (c3 + k7) % m,
        (d0 + counter) % m, (d1 + n0) % m, (d2 + n1) % m, (d3 + n2) % m
end

local function little_words(s)
    local words = {}
    for i = 1, #s / 4 do
        words[i] = little_word(s, 4 * i - 3)
    end
    return words
end

-- Poly1305: arithmetic modulo 2^130 - 5 with six limbs of 22 bits; sums of products stay below 2^53.

local LIMB = 4194304 -- 2^22
local WRAP = 20 -- 2^132 modulo 2^130 - 5

-- The limbs of the 16 bytes from position `at`, least significant first, and of `top` * 2^128.
local function limbs(s, at, top)
    local b1, b2, b3, b4, b5, b6, b7, b8, b9, b10, b11, b12, b13, b14, b15, b16 = byte(s, at, at + 15)
    local l3, l6, l9, l14 = b3 % 64, b6 % 16, b9 % 4, b14 % 64
    return b1 + b2 * 256 + l3 * 65536,
        (b3 - l3) / 64 + b4 * 4 + b5 * 1024 + l6 * 262144,
        (b6 - l6) / 16 + b7 * 16 + b8 * 4096 + l9 * 1048576,
        (b9 - l9) / 4 + b10 * 64 + b11 * 16384,
        b12 + b13 * 256 + l14 * 65536,
        (b14 - l14) / 64 + b15 * 4 + b16 * 1024 + top * 262144
end

local function carry(h) -- brings each limb below 2^22, apart from a little in the second one
    local c = 0
    for i = 1, 6 do
        local sum = h[i] + c
        h[i] = sum % LIMB
        c = (sum - h[i]) / LIMB
    end
    local sum = h[1] + WRAP * c
    h[1] = sum % LIMB
    h[2] = h[2] + (sum - h[1]) / LIMB
end

local function clamp(key) -- RFC 8439 section 2.5
    local r = { byte(key, 1, 16) }
    for i = 4, 16, 4 do
        r[i] = r[i] % 16
    end
    for i = 5, 13, 4 do
        r[i] = r[i] - r[i] % 4
    end
    return char(unpack(r))
end

-- Returns h modulo 2^130 - 5, plus the second half of the key, modulo 2^128.
local function poly1305_tag(h, key)
    for _ = 1, 3 do
        carry(h)
        local high = floor(h[6] / 1048576) -- bits from 2^130 on
        h[6] = h[6] - high * 1048576
        h[1] = h[1] + 5 * high
    end
    -- If h + 5 reaches 2^130, h is at least the modulus.
    local reduced, c = {}, 5
    for i = 1, 6 do
        local sum = h[i] + c
        reduced[i] = sum % LIMB
        c = (sum - reduced[i]) / LIMB
    end
    if reduced[6] >= 1048576 then
        h = reduced
    end
    local s = { limbs(key, 17, 0) }
    local out, value, bits, c2 = {}, 0, 0, 0
    for i = 1, 6 do
        local sum = h[i] + s[i] + c2
        local low = sum % LIMB
        c2 = (sum - low) / LIMB
        value = value + low * 2 ^ bits
        bits = bits + 22
        while bits >= 8 and #out < 16 do
            local x = value % 256
            out[#out + 1] = char(floor(x))
            value = (value - x) / 256
            bits = bits - 8
        end
    end
    return table.concat(out)
end

local function poly1305(key, message) -- `message` has a multiple of 16 bytes
    local r1, r2, r3, r4, r5, r6 = limbs(clamp(key), 1, 0)
    local v2, v3, v4, v5, v6 = WRAP * r2, WRAP * r3, WRAP * r4, WRAP * r5, WRAP * r6
    local h = { 0, 0, 0, 0, 0, 0 }
    for at = 1, #message, 16 do
        local a, b, c, d, e, f = limbs(message, at, 1)
        a, b, c, d, e, f = a + h[1], b + h[2], c + h[3], d + h[4], e + h[5], f + h[6]
        h[1] = a * r1 + b * v6 + c * v5 + d * v4 + e * v3 + f * v2
        h[2] = a * r2 + b * r1 + c * v6 + d * v5 + e * v4 + f * v3
        h[3] = a * r3 + b * r2 + c * r1 + d * v6 + e * v5 + f * v4
        h[4] = a * r4 + b * r3 + c * r2 + d * r1 + e * v6 + f * v5
        h[5] = a * r5 + b * r4 + c * r3 + d * r2 + e * r1 + f * v6
        h[6] = a * r6 + b * r5 + c * r4 + d * r3 + e * r2 + f * r1
        carry(h)
    end
    return poly1305_tag(h, key)
end

local ChaCha = {}
ChaCha.__index = ChaCha

local function new_chacha(key)
    return setmetatable({ key = little_words(key) }, ChaCha)
end

function ChaCha:decrypt(nonce, text, skipped_bytes)
    local size, words, skipped = #text, little_words(nonce), (skipped_bytes or 0) / 64
    text = padded(text, 64)
    local parts, n = {}, 0
    for block = 1, #text / 64 do
        local stream = { chacha_block(self.key, skipped + block, words) }
        for i = 1, 16 do
            local d, c, b, a = word_bytes(bxor(little_word(text, 64 * block - 67 + 4 * i), stream[i]))
            n = n + 1
            parts[n] = char(a, b, c, d)
        end
    end
    return sub(table.concat(parts), 1, size)
end

local function little_bytes(x) -- of a number below 2^32, in 8 bytes
    local d, c, b, a = word_bytes(x)
    return char(a, b, c, d) .. rep("\0", 4)
end

function ChaCha:tag(nonce, text, associated_data)
    local stream = { chacha_block(self.key, 0, little_words(nonce)) }
    local parts = {}
    for i = 1, 8 do
        parts[i] = sub(little_bytes(stream[i]), 1, 4)
    end
    return poly1305(table.concat(parts), padded(associated_data, 16) .. padded(text, 16)
        .. little_bytes(#associated_data) .. little_bytes(#text))
end

-- The ciphers by their names in the key log. A constructor takes a key of 32 bytes. A cipher has two methods:
--     decrypt(nonce, text, skipped_bytes)  the plaintext, whether or not the tag is right, of encrypted text or of what
--                                          follows its first `skipped_bytes`, a multiple of 64
--     tag(nonce, text, associated_data)    the 16 bytes that must follow the encrypted text
return { ["aes-256-gcm"] = new_aes, ["chacha20-poly1305"] = new_chacha }
