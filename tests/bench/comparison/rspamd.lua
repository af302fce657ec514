-- The rule as an rspamd administrator writes it: a pre-filter over the addresses that rspamd has read in To, Cc (and a
-- Bcc that arrives).
local limit = tonumber(os.getenv('COMPARISON_LIMIT'))
local internal = { ['council.test'] = true, ['city.test'] = true }

rspamd_config:register_symbol({
  name = 'MANY_STRANGERS',
  type = 'prefilter',
  callback = function(task)
    local seen, count = {}, 0
    for _, address in ipairs(task:get_recipients('mime') or {}) do
      local domain = address.domain:lower()
      if not internal[domain] then
        local key = address.user:lower() .. '@' .. domain
        if not seen[key] then
          seen[key] = true
          count = count + 1
        end
      end
    end
    if count > limit then
      task:set_pre_result('reject', 'Too many addresses in sight: use Bcc')
    end
  end,
})
